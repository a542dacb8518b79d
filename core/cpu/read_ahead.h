// SPDX-License-Identifier: MIT
// The weights that the products of a repeated sequence of operations read, in order. A thread that
// waits for tasks fetches the beginning of its part of the next product's weights into its
// second-level cache: memory is the limit of decoding one token, and would be idle meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/base/parallel.h"

namespace bitnet::cpu {

class ReadAhead {
 public:
  // Memory that a thread reads in ascending order.
  struct Stretch {
    const void* data = nullptr;
    std::int64_t bytes = 0;
  };

  explicit ReadAhead(int threads);

  // The sequence starts, again.
  void begin();
  // One of its products starts, which reads `bytes`. The first time, stretch_of(thread) is asked
  // for what each thread will read first.
  template <typename StretchOf>
  void start_product(std::int64_t bytes, const StretchOf& stretch_of) {
    if (product_ * threads() == static_cast<std::int64_t>(stretches_.size())) {
      bytes_ += bytes;
      for (int thread = 0; thread < threads(); ++thread) stretches_.push_back(stretch_of(thread));
    }
    ++product_;
    announce();
  }
  // What all products read, as far as they are known.
  std::int64_t bytes() const { return bytes_; }
  // Fetches a little for a thread, which calls this for itself alone. Returns false when there is
  // nothing more to fetch until the next product starts.
  bool step(int thread);

 private:
  // What a thread shall fetch, set by the one that runs the sequence. The fields may be seen in any
  // mixture: a fetch of whatever address does no harm.
  struct alignas(kApart) Order {
    std::atomic<std::int64_t> number{0};
    std::atomic<const char*> data{nullptr};
    std::atomic<std::int64_t> bytes{0};
    // The thread's own:
    alignas(kApart) std::int64_t seen = 0;
    std::int64_t fetched = 0;
  };

  int threads() const { return static_cast<int>(orders_.size()); }
  void announce();

  std::vector<Stretch> stretches_;  // [products][threads]
  std::vector<Order> orders_;       // [threads]
  std::int64_t bytes_ = 0;
  // Of the thread that runs the sequence, while the others look for orders.
  alignas(kApart) std::int64_t product_ = 0;  // the next one to start
  std::int64_t number_ = 0;                   // of orders
};

}  // namespace bitnet::cpu
