// SPDX-License-Identifier: MIT
// Every table of head kernels against the sums written out. Depends on bitnet_kernels alone.
#include "core/cpu/head_kernels.h"

#include <cstdint>
#include <random>
#include <vector>

#include "tests/cpu/available_isas.h"
#include "tests/support/catch.h"

namespace bitnet::cpu {
namespace {

const HeadKernels& generated_kernels() {
  const HeadKernels* kernels = head_kernels(GENERATE(from_range(test::available_isas())));
  REQUIRE(kernels != nullptr);
  return *kernels;
}

template <typename T>
T& at(std::vector<T>& v, std::int64_t i) {
  return v.at(static_cast<std::size_t>(i));
}

// Runs dot() and compares it with the sums; acc has an element more, which must stay untouched.
void check_dot(const HeadKernels& kernels, std::vector<std::int8_t> w, std::int64_t rows,
               std::vector<std::int8_t> x, std::int64_t tokens, std::int64_t columns) {
  constexpr std::int32_t kUntouched = 123456789;
  const std::vector<std::int32_t> untouched(static_cast<std::size_t>(rows * tokens + 1),
                                            kUntouched);
  std::vector<std::int32_t> expected = untouched;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t n = 0; n < rows; ++n) {
      std::int32_t sum = 0;
      for (std::int64_t k = 0; k < columns; ++k)
        sum += at(x, t * columns + k) * at(w, n * columns + k);
      at(expected, t * rows + n) = sum;
    }
  }
  for (const std::int64_t ahead : {0, 8192, 16384}) {
    std::vector<std::int32_t> acc = untouched;
    kernels.dot(w.data(), rows, columns, x.data(), tokens, ahead, acc.data());
    CAPTURE(kernels.name, rows, tokens, columns, ahead);
    CHECK(acc == expected);
  }
}

std::vector<std::int8_t> random_values(std::int64_t count, int lowest, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> values(static_cast<std::size_t>(count));
  const auto range = static_cast<unsigned>(128 - lowest);
  for (auto& v : values) v = static_cast<std::int8_t>(static_cast<int>(random() % range) + lowest);
  return values;
}

}  // namespace

TEST_CASE("the head's products are exact on every ISA, for any number of rows, tokens, columns") {
  const HeadKernels& kernels = generated_kernels();
  for (const std::int64_t columns : {1, 16, 31, 32, 63, 64, 65, 96, 128, 192, 256, 320, 2560}) {
    for (const std::int64_t rows : {1, 3, 4, 9}) {
      for (const std::int64_t tokens : {1, 2, 3, 4, 5, 11}) {
        check_dot(kernels, random_values(rows * columns, -127, 1), rows,
                  random_values(tokens * columns, -128, 2), tokens, columns);
      }
    }
  }
}

TEST_CASE("the head's products hold the largest sums") {
  const HeadKernels& kernels = generated_kernels();
  constexpr std::int64_t kColumns = 1 << 16;  // 2^16 * 127 * 128 < 2^30
  const auto all = [](std::int64_t count, int value) {
    return std::vector<std::int8_t>(static_cast<std::size_t>(count),
                                    static_cast<std::int8_t>(value));
  };
  constexpr std::int64_t kRows = 5, kTokens = 5;  // more than a block of either
  for (const int weight : {-127, 127}) {
    for (const int activation : {-128, 127}) {
      check_dot(kernels, all(kRows * kColumns, weight), kRows, all(kTokens * kColumns, activation),
                kTokens, kColumns);
    }
  }
}

}  // namespace bitnet::cpu
