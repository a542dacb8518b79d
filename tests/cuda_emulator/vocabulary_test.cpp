// SPDX-License-Identifier: MIT
// What each lane gets, against the PTX ISA's and the CUDA guide's words written out a second time.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/cuda_emulator/vocabulary_kernels.h"
#include "tests/support/catch.h"

namespace bitnet::test {
namespace {

// PTX ISA, "Matrix Fragments for mma.m16n8k32" (8-bit) and "mma.m16n8k16" (bf16): element i of a
// lane's fragment, with groupID = lane >> 2 and threadID_in_group = lane % 4.
struct Element {
  int row, column;
};
Element s8_a(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  const int row = (0 <= i && i < 4) || (8 <= i && i < 12) ? group : group + 8;
  return {row, i < 8 ? thread * 4 + (i & 3) : thread * 4 + (i & 3) + 16};
}
Element s8_b(int lane, int i) {  // row is k
  const int group = lane >> 2, thread = lane % 4;
  return {i < 4 ? thread * 4 + (i & 3) : thread * 4 + (i & 3) + 16, group};
}
Element bf16_a(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
  return {row, i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8};
}
Element bf16_b(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8, group};
}
Element accumulator(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
}

// Small integers: bf16 and fp32 hold them and their sums exactly, in any order.
std::vector<int> random_matrix(int elements, int largest, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int> m(static_cast<std::size_t>(elements));
  for (int& v : m) {
    v = static_cast<int>(random() % static_cast<unsigned>(2 * largest + 1)) - largest;
  }
  return m;
}

std::uint16_t bf16_bits(int value) {
  const float f = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return static_cast<std::uint16_t>(bits >> 16);
}

// a [16, k], b [k, 8], c [16, 8]; `k` elements in depth, `per_register` of them in a register.
struct Mma {
  int k, per_register;
  Element (*a)(int, int);
  Element (*b)(int, int);
};

template <typename Encode>
std::vector<std::uint32_t> fragments(const std::vector<int>& matrix, int columns, int registers,
                                     int per_register, Element (*place)(int, int), Encode encode) {
  std::vector<std::uint32_t> all;
  for (int lane = 0; lane < 32; ++lane) {
    for (int r = 0; r < registers; ++r) {
      std::uint32_t packed = 0;
      for (int e = 0; e < per_register; ++e) {
        const Element at = place(lane, r * per_register + e);
        const std::uint32_t bits =
            encode(matrix[static_cast<std::size_t>(at.row * columns + at.column)]);
        packed |= bits << (32 / per_register * e);
      }
      all.push_back(packed);
    }
  }
  return all;
}

template <typename Number, typename Encode, typename Run>
void check_mma(const Mma& shape, int largest, Encode encode, Run run) {
  const auto a = random_matrix(16 * shape.k, largest, 1),
             b = random_matrix(shape.k * 8, largest, 2);
  const auto c = random_matrix(16 * 8, 1000, 3);
  std::vector<Number> before, expected;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Element at = accumulator(lane, i);
      int sum = c[static_cast<std::size_t>(at.row * 8 + at.column)];
      before.push_back(static_cast<Number>(sum));
      for (int k = 0; k < shape.k; ++k) {
        sum += a[static_cast<std::size_t>(at.row * shape.k + k)] *
               b[static_cast<std::size_t>(k * 8 + at.column)];
      }
      expected.push_back(static_cast<Number>(sum));
    }
  }
  const auto left = fragments(a, shape.k, 4, shape.per_register, shape.a, encode);
  const auto right = fragments(b, 8, 2, shape.per_register, shape.b, encode);
  in_each_execution([&] {
    const Stream stream;
    DeviceArray<std::uint32_t> a_registers(left), b_registers(right);
    DeviceArray<Number> d(before);
    REQUIRE(cuda_error(run(a_registers.data(), b_registers.data(), d.data(), stream)) == "");
    CHECK(d.to_host() == expected);
  });
}

TEST_CASE("mma.m16n8k32 multiplies signed bytes laid out as the PTX ISA says") {
  check_mma<int>(
      {32, 4, s8_a, s8_b}, 127, [](int v) { return std::uint32_t{static_cast<std::uint8_t>(v)}; },
      run_mma_s8);
}

TEST_CASE("mma.m16n8k16 multiplies bf16 laid out as the PTX ISA says") {
  check_mma<float>(
      {16, 2, bf16_a, bf16_b}, 100, [](int v) { return std::uint32_t{bf16_bits(v)}; },
      run_mma_bf16);
}

TEST_CASE("ldmatrix gives each lane the two elements that the PTX ISA says") {
  const bool transposed = GENERATE(false, true);
  std::vector<std::uint16_t> matrices;  // element (m, r, c) holds 100 m + 10 r + c
  for (int m = 0; m < 4; ++m) {
    for (int r = 0; r < 8; ++r) {
      for (int c = 0; c < 8; ++c)
        matrices.push_back(static_cast<std::uint16_t>(m * 100 + r * 10 + c));
    }
  }
  std::vector<std::uint32_t> expected;
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned m = 0; m < 4; ++m) {
      const unsigned line = lane / 4, at = lane % 4 * 2;
      const unsigned first = transposed ? m * 100 + at * 10 + line : m * 100 + line * 10 + at;
      const unsigned second = transposed ? first + 10 : first + 1;
      expected.push_back(second << 16 | first);
    }
  }
  in_each_execution([&] {
    const Stream stream;
    DeviceArray<std::uint16_t> from(matrices);
    DeviceArray<std::uint32_t> registers(32 * 4);
    REQUIRE(cuda_error(run_ldmatrix(from.data(), transposed, registers.data(), stream)) == "");
    CHECK(registers.to_host() == expected);
  });
}

TEST_CASE("cp.async copies 16 bytes or writes zeros") {
  std::vector<std::uint32_t> source(32 * 4), expected(32 * 4, 0);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint32_t>(i + 1);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    for (std::size_t i = 0; i < 4 && lane % 3 != 0; ++i) {
      expected[lane * 4 + i] = source[(31 - lane) * 4 + i];
    }
  }
  in_each_execution([&] {
    const Stream stream;
    DeviceArray<std::uint32_t> from(source), to(source.size());
    REQUIRE(cuda_error(run_copy_async(from.data(), to.data(), stream)) == "");
    CHECK(to.to_host() == expected);
  });
}

TEST_CASE("Shuffles, votes and warp sums are those of the CUDA guide") {
  in_each_execution([] {
    const Stream stream;
    DeviceArray<WarpResults> results(32);
    REQUIRE(cuda_error(run_warp_words(results.data(), stream)) == "");
    const std::vector<WarpResults> of_lane = results.to_host();
    for (int lane = 0; lane < 32; ++lane) {
      CAPTURE(lane);
      const WarpResults& r = of_lane[static_cast<std::size_t>(lane)];
      CHECK(r.shfl_from_5 == 105);
      CHECK(r.shfl_parts_of_8 == 100 + lane / 8 * 8 + 2);       // 10 modulo 8
      CHECK(r.up_by_3 == (lane < 3 ? 100 + lane : 97 + lane));  // the lowest keep their own
      CHECK(r.down_by_3 == (lane > 28 ? 100 + lane : 103 + lane));
      CHECK(r.xor_9 == 100 + (lane ^ 9));
      // Lanes of earlier parts can be read, those of later parts not.
      const int partner = lane ^ 12;
      CHECK(r.xor_12_parts_of_8 == 100 + (partner / 8 <= lane / 8 ? partner : lane));
      CHECK(r.ballot_of_even == 0x55555555U);
      CHECK(r.sum == 100 * 32 + 31 * 16);
      CHECK(r.maximum == 131);
      CHECK(r.any_is_7 == 1);
      CHECK(r.all_below_32 == 1);
    }
  });
}

TEST_CASE("The sums and maxima of a block are the same in every thread") {
  in_each_execution([] {
    const Stream stream;
    DeviceArray<float> results(kReduceThreads);
    REQUIRE(cuda_error(run_block_reductions(results.data(), stream)) == "");
    constexpr float kSum = kReduceThreads * (kReduceThreads + 1) / 2;  // and twice it: all exact
    CHECK(results.to_host() ==
          std::vector<float>(kReduceThreads, 10000.0f * kReduceThreads + 3 * kSum));
  });
}

TEST_CASE("Number words are those of the CUDA guide") {
  const Stream stream;
  DeviceArray<NumberResults> results(1);
  REQUIRE(cuda_error(run_number_words(results.data(), stream)) == "");
  const NumberResults r = results.to_host()[0];
  CHECK(r.dp4a == 1000 + 127 * 2 + -128 * -2 + -1 * 3 + 1 * -128);
  CHECK(r.to_int_ties[0] == 0);
  CHECK(r.to_int_ties[1] == 2);
  CHECK(r.to_int_ties[2] == -2);
  CHECK(r.to_int_ties[3] == 2);
  CHECK(r.to_int_nan == 0);
  CHECK(r.to_int_huge == -2147483647 - 1);
  CHECK(r.leading_zeros == 15);
  CHECK(r.bits_set == 13);
  CHECK(r.byte_perm == 0x77225500U);
  CHECK(r.mulhi == 0x80000000U);
  CHECK(r.bf16_pair == 0xc0403f80U);
  CHECK(r.bf16_low == 1.0f);
  CHECK(r.bf16_high == -3.0f);
  CHECK(r.f16_pair == 0xfc003c00U);
  CHECK(r.f16_low == 0x1p-24f);
  CHECK(r.f16_high == -32.03125f);
  CHECK(r.exp2_of_0 == 1.0f);
  CHECK(r.exp2_of_minus_infinity == 0.0f);
  CHECK(r.exp2_of_minus_127 == 0.0f);  // below the least normal number
  CHECK(std::abs(r.exp2_of_3_5 / 11.313708498984761 - 1) <= 0x1p-22);
  CHECK(std::isnan(r.exp2_of_nan));
}

}  // namespace
}  // namespace bitnet::test
