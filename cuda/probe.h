// SPDX-License-Identifier: MIT
// Finds which of several ways to compute the same bits is the quickest for a shape, by timing each
// once. Since the bits are the same, what it finds never changes a result.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

namespace bitnet::cuda {

class Probe {
 public:
  using Key = std::array<std::int64_t, 4>;  // what the time depends on
  // Issues candidate i on the stream; false, and nothing issued, where it cannot be used.
  using Candidate = std::function<bool(std::size_t i)>;

  // Of `count` candidates, of which `unprobed` can always be used. Waits for the stream the first
  // time that a key is asked for. A stream that is being captured cannot be timed: then, as long as
  // the key is not known, it is `unprobed`.
  std::size_t quickest(const Key& key, std::size_t count, std::size_t unprobed, cudaStream_t stream,
                       const Candidate& run);
  // From now on the answer is always this one (tests), or, without a value, what is quickest.
  void force(std::optional<std::size_t> candidate) { forced_ = candidate; }
  bool forced() const { return forced_.has_value(); }

 private:
  std::map<Key, std::size_t> known_;
  std::optional<std::size_t> forced_;
};

}  // namespace bitnet::cuda
