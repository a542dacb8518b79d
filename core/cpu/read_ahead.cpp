// SPDX-License-Identifier: MIT
#include "core/cpu/read_ahead.h"

#include <algorithm>

#include "core/base/machine.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kLine = 64;
constexpr std::int64_t kStepLines = 8;  // so that a task is seen soon
// Half of the second-level cache, which holds activations, keys and values besides.
constexpr std::int64_t kMostBytes = 1 << 20;

}  // namespace

ReadAhead::ReadAhead(int threads) : orders_(static_cast<std::size_t>(threads)) {}

void ReadAhead::begin() { product_ = 0; }

void ReadAhead::announce() {
  const auto known = static_cast<std::int64_t>(stretches_.size()) / threads();
  // Behind the last product comes the first one of the next time.
  const std::int64_t next = product_ < known ? product_ : 0;
  ++number_;
  for (int thread = 0; thread < threads(); ++thread) {
    const Stretch& stretch = stretches_[static_cast<std::size_t>(next * threads() + thread)];
    Order& order = orders_[static_cast<std::size_t>(thread)];
    order.data.store(static_cast<const char*>(stretch.data), std::memory_order_relaxed);
    order.bytes.store(std::min(stretch.bytes, kMostBytes), std::memory_order_relaxed);
    order.number.store(number_, std::memory_order_release);
  }
}

bool ReadAhead::step(int thread) {
  Order& order = orders_[static_cast<std::size_t>(thread)];
  const std::int64_t number = order.number.load(std::memory_order_acquire);
  if (number != order.seen) {
    order.seen = number;
    order.fetched = 0;
  }
  if (order.fetched >= order.bytes.load(std::memory_order_relaxed)) return false;
  const char* const data = order.data.load(std::memory_order_relaxed) + order.fetched;
  for (std::int64_t line = 0; line < kStepLines; ++line) {
    __builtin_prefetch(data + line * kLine, 0, 2);
  }
  order.fetched += kStepLines * kLine;
  return true;
}

}  // namespace bitnet::cpu
