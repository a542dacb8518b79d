// SPDX-License-Identifier: MIT
// Limits of plain C++, as the compiler vectorises it for the oldest processor of the architecture.
#include <cstdint>
#include <cstring>

#include "core/cpu/limit_kernels.h"

namespace bitnet::cpu {
namespace {

std::uint64_t word_at(const std::uint8_t* place) {
  std::uint64_t word;
  std::memcpy(&word, place, sizeof word);
  return word;
}

template <std::int64_t kAhead, int kSteps>
std::uint64_t read(const std::uint8_t* data, std::int64_t bytes) {
  std::uint64_t mix = 0;
  for (std::int64_t i = 0; i < bytes; i += 64) {
    if (kAhead > 0) __builtin_prefetch(data + i + kAhead);
    std::uint64_t line = 0;
    for (int w = 0; w < 8; ++w) line ^= word_at(data + i + 8 * w);
    mix ^= line;
    for (int step = 0; step < kSteps; ++step) {
      ++mix;
      asm volatile("" : "+r"(mix));  // one after the other
    }
  }
  return mix;
}

constexpr int kSums = 32;

std::uint32_t multiply_add(std::int64_t rounds) {
  float sums[kSums] = {}, a = 1.0f, b = 0.125f;
  // Unknown to the compiler from here on.
  asm volatile("" : "+m"(a), "+m"(b));
  for (std::int64_t r = 0; r < rounds; ++r) {
    for (float& sum : sums) sum = sum * b + a;
  }
  float all = 0;
  for (const float sum : sums) all += sum;
  return static_cast<std::uint32_t>(all);
}

constexpr int kBytes = 4096;  // two of them stay in the first-level cache

std::uint32_t dot_bytes(std::int64_t rounds) {
  std::int8_t x[kBytes], w[kBytes];
  for (int i = 0; i < kBytes; ++i) {
    x[i] = static_cast<std::int8_t>(i * 7 % 255 - 127);
    w[i] = static_cast<std::int8_t>(i % 3 - 1);
  }
  std::int32_t all = 0;
  for (std::int64_t r = 0; r < rounds; ++r) {
    asm volatile("" : : "r"(x), "r"(w) : "memory");  // may have changed: computed again
    std::int32_t sum = 0;
    for (int i = 0; i < kBytes; ++i) sum += x[i] * w[i];
    all ^= sum;
  }
  return static_cast<std::uint32_t>(all);
}

}  // namespace

const LimitKernels kLimitsScalar = {
    "scalar",
    {{"8-byte words", read<0, 0>},
     {"8-byte words, prefetch 4 KB ahead", read<kReadAhead, 0>},
     {"8-byte words, prefetch 4 KB ahead, paced", read<kReadAhead, kPace>}},
    {{"multiply, add", 2 * kSums, multiply_add}, {}},
    {{"int8 x int8 -> int32", 2 * kBytes, dot_bytes}, {}},
};

}  // namespace bitnet::cpu
