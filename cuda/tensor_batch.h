// SPDX-License-Identifier: MIT
// Operations on many tensors turn them into the arguments of a kernel in batches: in memory of a
// fixed size, because operations do not allocate.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace bitnet::cuda {

inline constexpr std::size_t kBatchedTensors = 128;

// What a launcher takes of each tensor of a batch.
template <typename Argument>
class TensorBatch {
 public:
  void push_back(const Argument& argument) { arguments_[count_++] = argument; }
  std::size_t size() const { return count_; }
  std::span<const Argument> all() const { return {arguments_.data(), count_}; }

 private:
  std::array<Argument, kBatchedTensors> arguments_;
  std::size_t count_ = 0;
};

// of_batch(some of the tensors), in order, until all have been there.
template <typename Tensor, typename OfBatch>
void for_each_batch(std::span<const Tensor> tensors, OfBatch of_batch) {
  for (std::size_t first = 0; first < tensors.size(); first += kBatchedTensors)
    of_batch(tensors.subspan(first, std::min(tensors.size() - first, kBatchedTensors)));
}

}  // namespace bitnet::cuda
