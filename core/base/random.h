// SPDX-License-Identifier: MIT
// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): a value is a pure function of
// (seed, purpose, step, index), so it is the same for any number of threads or processes and on
// every device, and a resumed run needs no saved state.
#pragma once

#include <array>
#include <cstdint>

namespace bitnet {

// What a stream of numbers is for; part of the counter, so that no two uses ever share a number.
enum class RandomPurpose : std::uint32_t {
  initial_weights = 1,
  batch_order = 2,
  dropout = 3,
  sampling = 4,
  test = 99,
};

// Four independent 32-bit words of Philox4x32-10 for a 128-bit counter and a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
        static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

// A stream of numbers indexed from 0. `step` is the training step or the like.
struct RandomStream {
  std::uint64_t seed = 0;
  RandomPurpose purpose = RandomPurpose::test;
  std::uint32_t step = 0;

  // Block `index` of four words: counter = {index low, index high, step, purpose}, key = seed.
  constexpr std::array<std::uint32_t, 4> block(std::uint64_t index) const {
    return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                       step, static_cast<std::uint32_t>(purpose)},
                      seed);
  }
  // Uniform in [0, 1) with 53 bits.
  double uniform(std::uint64_t index) const;
  // Uniform integer in [0, bound), bound >= 1 (128-bit multiply: bias below 2^-64 * bound).
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;
  // Standard normal (Box-Muller on one block).
  double normal(std::uint64_t index) const;
};

}  // namespace bitnet
