// SPDX-License-Identifier: MIT
// Every table of integer kernels against the definition or the scalar table, bit for bit. Depends
// on bitnet_kernels alone.
#include "core/cpu/integer_kernels.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "tests/cpu/available_isas.h"
#include "tests/support/catch.h"

namespace bitnet::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

const IntegerKernels& generated_kernels() {
  const Isa isa = GENERATE(from_range(test::available_isas()));
  const IntegerKernels* kernels = integer_kernels(isa);
  REQUIRE(kernels != nullptr);
  return *kernels;
}

std::vector<std::int8_t> random_activations(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  return x;
}

std::vector<std::uint8_t> random_packed(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(count));
  for (auto& byte : packed) {
    unsigned bits = 0;
    for (int i = 0; i < 4; ++i) bits |= (random() % 3) << (2 * i);
    byte = static_cast<std::uint8_t>(bits);
  }
  return packed;
}

std::vector<float> random_floats(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = normal(random);
  return x;
}

// Comparable with == even where there are NaNs and signed zeros.
std::vector<std::uint32_t> bits_of(const std::vector<float>& x) {
  std::vector<std::uint32_t> bits;
  for (const float v : x) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

int trit(std::uint8_t byte, int i) { return ((byte >> (2 * i)) & 3) - 1; }

// packed_dot of `tokens` rows of x that lie `stride` apart, against the sum written out.
void check_packed_dot(const IntegerKernels& kernels, const std::vector<std::uint8_t>& packed,
                      const std::vector<std::int8_t>& x, std::int64_t stride, std::int64_t tokens) {
  const auto columns = static_cast<std::int64_t>(packed.size());
  const std::int64_t acc_stride = 12;
  std::vector<std::int32_t> sums, expected(static_cast<std::size_t>(tokens * acc_stride), -7);
  for (std::int64_t t = 0; t < tokens; ++t) {
    sums.push_back(kernels.sum_codes(x.data() + t * stride, columns));
    std::int32_t sum = 0;
    for (std::int64_t c = 0; c < columns; ++c) sum += x[static_cast<std::size_t>(t * stride + c)];
    CHECK(sums.back() == sum);
    for (int i = 0; i < 4; ++i) {
      std::int32_t dot = 0;
      for (std::int64_t c = 0; c < columns; ++c) {
        dot += trit(packed[static_cast<std::size_t>(c)], i) *
               x[static_cast<std::size_t>(t * stride + c)];
      }
      expected[static_cast<std::size_t>(t * acc_stride + i)] = dot;
    }
  }
  std::vector<std::int32_t> acc(expected.size(), -7);  // elements between the tokens stay untouched
  kernels.packed_dot(packed.data(), columns, x.data(), stride, sums.data(), tokens, acc.data(),
                     acc_stride);
  CHECK(acc == expected);
}

TEST_CASE("packed_dot is exact on every instruction set, for any number of tokens") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t columns : {64, 128, 192, 256, 1280, 1344, 4160}) {
    for (std::int64_t tokens = 0; tokens <= 13; ++tokens) {
      INFO("columns " << columns << ", tokens " << tokens);
      const auto packed = random_packed(columns, static_cast<unsigned>(columns));
      const std::int64_t stride = columns + 64;
      check_packed_dot(kernels, packed, random_activations(stride * tokens, 5), stride, tokens);
    }
  }
}

TEST_CASE("packed_rows_dot is packed_dot of each row for one token") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t columns : {64, 128, 256, 1344, 4160}) {
    for (const std::int64_t rows : {0, 1, 2, 3, 4, 5, 8, 19}) {
      INFO("columns " << columns << ", rows " << rows);
      const auto packed = random_packed(rows * columns, static_cast<unsigned>(columns));
      const auto x = random_activations(columns, 5);
      const std::int32_t x_sum = kernels.sum_codes(x.data(), columns);
      std::vector<std::int32_t> expected(static_cast<std::size_t>(rows * 4 + 1), -7);
      const std::vector<std::int32_t> untouched = expected;
      for (std::int64_t j = 0; j < rows; ++j) {
        kIntegerScalar.packed_dot(packed.data() + j * columns, columns, x.data(), columns, &x_sum,
                                  1, expected.data() + j * 4, 4);
      }
      for (const std::int64_t ahead : {std::int64_t{0}, kStreamAhead, 2 * kStreamAhead}) {
        std::vector<std::int32_t> acc = untouched;  // nothing beyond the last row is written
        kernels.packed_rows_dot(packed.data(), rows, columns, x.data(), x_sum, ahead, acc.data());
        CHECK(acc == expected);
      }
    }
  }
}

TEST_CASE("packed_rows_dot holds the largest sums of long rows") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const int code : {0, 1, 2}) {
    for (const int activation : {-128, 127}) {
      for (const int columns : {1 << 16, (1 << 16) + 64, 1 << 20, (1 << 20) + 64}) {
        const std::int64_t rows = columns > 1 << 17 ? 1 : 5;  // four together, and one
        const auto byte = static_cast<std::uint8_t>(code * 0x55);
        const std::vector<std::uint8_t> packed(static_cast<std::size_t>(columns * rows), byte);
        const std::vector<std::int8_t> x(static_cast<std::size_t>(columns),
                                         static_cast<std::int8_t>(activation));
        std::vector<std::int32_t> acc(static_cast<std::size_t>(4 * rows));
        kernels.packed_rows_dot(packed.data(), rows, columns, x.data(), activation * columns,
                                kStreamAhead, acc.data());
        CHECK(acc == std::vector<std::int32_t>(acc.size(), (code - 1) * activation * columns));
      }
    }
  }
}

TEST_CASE("packed_dot holds the largest sums of long rows") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const int code : {0, 1, 2}) {
    for (const int activation : {-128, 127}) {
      const std::int64_t columns = 16384, tokens = 7;
      const auto byte = static_cast<std::uint8_t>(code * 0x55);
      const std::vector<std::uint8_t> packed(columns, byte);
      const std::vector<std::int8_t> x(columns * tokens, static_cast<std::int8_t>(activation));
      check_packed_dot(kernels, packed, x, columns, tokens);
    }
  }
}

TEST_CASE("products are scaled and put in place with the scalar kernel's bits") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t rows : {1, 3, 4, 5, 15, 16, 17, 35}) {
    INFO("rows " << rows);
    const std::int64_t tokens = 3, quarter = rows + 2, stride = 4 * quarter + 1;
    std::mt19937 random(11);
    std::vector<std::int32_t> acc(static_cast<std::size_t>(tokens * rows * 4));
    for (auto& a : acc) a = static_cast<std::int32_t>(random());  // many do not fit fp32 exactly
    const auto act_scale = random_floats(tokens, 1), weight_scales = random_floats(4 * rows, 2);
    const auto start = random_floats(tokens * stride, 3);

    std::vector<float> y = start, expected = start;
    kernels.store_products(acc.data(), tokens, rows, act_scale.data(), 0.37f, nullptr, y.data(),
                           stride, quarter);
    kIntegerScalar.store_products(acc.data(), tokens, rows, act_scale.data(), 0.37f, nullptr,
                                  expected.data(), stride, quarter);
    CHECK(bits_of(y) == bits_of(expected));
    const auto last = static_cast<std::size_t>(rows * 4 + 2);  // token 1, row 0, quarter 2
    const float product = (act_scale[1] * 0.37f) * static_cast<float>(acc[last]);
    const auto place = static_cast<std::size_t>(stride + 2 * quarter);
    CHECK(y[place] == product);

    const std::vector<float> products = y;
    kernels.store_products(acc.data(), tokens, rows, act_scale.data(), 0.37f, start.data(),
                           y.data(), stride, quarter);
    kIntegerScalar.store_products(acc.data(), tokens, rows, act_scale.data(), 0.37f, start.data(),
                                  expected.data(), stride, quarter);
    CHECK(bits_of(y) == bits_of(expected));
    CHECK(y[place] == start[place] + products[place]);
    y = start;  // in place
    kernels.store_products(acc.data(), tokens, rows, act_scale.data(), 0.37f, y.data(), y.data(),
                           stride, quarter);
    CHECK(bits_of(y) == bits_of(expected));

    y = start;
    expected = start;
    kernels.add_group_products(acc.data(), tokens, rows, weight_scales.data(), y.data(), stride,
                               quarter);
    kIntegerScalar.add_group_products(acc.data(), tokens, rows, weight_scales.data(),
                                      expected.data(), stride, quarter);
    CHECK(bits_of(y) == bits_of(expected));
  }
}

void check_quantize_row(const IntegerKernels& kernels, const std::vector<float>& x) {
  const auto columns = static_cast<std::int64_t>(x.size());
  std::vector<std::int8_t> codes(x.size() + 1, 99), expected(x.size() + 1, 99);
  const float scale = kernels.quantize_row(x.data(), columns, codes.data());
  const float expected_scale = kIntegerScalar.quantize_row(x.data(), columns, expected.data());
  CHECK(std::bit_cast<std::uint32_t>(scale) == std::bit_cast<std::uint32_t>(expected_scale));
  CHECK(codes == expected);

  std::vector<float> back(x.size()), expected_back(x.size());
  kernels.scale_codes(codes.data(), scale, columns, back.data());
  kIntegerScalar.scale_codes(codes.data(), scale, columns, expected_back.data());
  CHECK(bits_of(back) == bits_of(expected_back));
}

TEST_CASE("rows of activations quantise to the scalar kernel's bits") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (std::int64_t columns = 0; columns <= 80; ++columns) {
    INFO("columns " << columns);
    auto x = random_floats(columns, 7);
    check_quantize_row(kernels, x);
    for (const float special :
         {0.0f, -0.0f, 1e-30f, 1e-42f, 3.4e38f, -3.4e38f, 1e-5f, kInfinity, -kInfinity, kNaN}) {
      for (const std::size_t place : {std::size_t{0}, x.size() / 2, x.size() - 1}) {
        if (x.empty()) continue;
        auto changed = x;
        changed[place] = special;
        check_quantize_row(kernels, changed);
        check_quantize_row(kernels, std::vector<float>(x.size(), special));
      }
    }
  }
}

TEST_CASE("activation codes round half to even and the largest magnitude becomes 127") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  std::vector<float> x = {-127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f};  // inv_scale is 1
  std::vector<std::int8_t> expected = {-127, 0, 2, 2, 0, -2, -2, 126};
  for (int repeat = 0; repeat < 3; ++repeat) {  // 8, 16, 32 columns: tails and whole vectors
    std::vector<std::int8_t> codes(x.size());
    const float scale =
        kernels.quantize_row(x.data(), static_cast<std::int64_t>(x.size()), codes.data());
    CHECK(scale == 1.0f);
    CHECK(codes == expected);
    x.insert(x.end(), x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size()));
    expected.insert(expected.end(), expected.begin(),
                    expected.begin() + static_cast<std::ptrdiff_t>(expected.size()));
  }
}

TEST_CASE("a row that is not finite gets an act_scale that is not finite, and codes of 0") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const float bad : {kInfinity, -kInfinity, kNaN}) {
    auto x = random_floats(64, 3);
    x[40] = bad;
    std::vector<std::int8_t> codes(x.size(), 1);
    CHECK(!std::isfinite(kernels.quantize_row(x.data(), 64, codes.data())));
    CHECK(codes == std::vector<std::int8_t>(64, 0));
  }
}

TEST_CASE("tile sums have one order on every instruction set") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t count : {0, 1, 7, 15, 16, 17, 31, 33, 64, 100, 4095, 4096}) {
    INFO("count " << count);
    auto w = random_floats(count, 9);
    for (std::size_t k = 0; k < w.size(); k += 3) w[k] *= 1e12f;  // so that the order shows
    CHECK(kernels.sum_tile(w.data(), count) == kIntegerScalar.sum_tile(w.data(), count));
    CHECK(kernels.sum_abs_tile(w.data(), count) == kIntegerScalar.sum_abs_tile(w.data(), count));
  }
}

TEST_CASE("weights pack to the scalar kernel's bytes and unpack to their trits") {
  const IntegerKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t columns : {64, 128, 192, 320}) {
    const std::int64_t stride = columns + 3;
    auto w = random_floats(4 * stride, 13);
    const float specials[] = {0.5f, -0.5f, 0.50000006f, -0.50000006f, 0.0f,      -0.0f,
                              1.5f, -1.5f, kInfinity,   -kInfinity,   3.4e38f,   kNaN,
                              0.1f, 0.3f,  1e-44f,      -1e-44f,      0.2999999f};
    for (std::size_t k = 0; k < std::size(specials); ++k) w[k * 5] = specials[k];
    // Row 0 has its ties at ±0.5, and the mean of row 1 is an element.
    const float inv_scales[4] = {1.0f, 1.7f, 0.3f, 1e5f};
    const float means[4] = {0.0f, w[static_cast<std::size_t>(stride + 9)], -0.4f, 0.3f};
    const auto bytes = static_cast<std::size_t>(columns);
    std::vector<std::uint8_t> packed(bytes), expected(bytes);
    kernels.pack_ternary(w.data(), stride, columns, inv_scales, packed.data());
    kIntegerScalar.pack_ternary(w.data(), stride, columns, inv_scales, expected.data());
    CHECK(packed == expected);
    CHECK(trit(packed[0], 0) == 0);    // 0.5
    CHECK(trit(packed[10], 0) == 1);   // just above
    CHECK(trit(packed[15], 0) == -1);  // just below -0.5
    CHECK(trit(packed[55], 0) == 0);   // NaN

    kernels.pack_binary(w.data(), stride, columns, means, packed.data());
    kIntegerScalar.pack_binary(w.data(), stride, columns, means, expected.data());
    CHECK(packed == expected);
    CHECK(trit(packed[9], 1) == -1);  // equal to the mean

    const auto random = random_packed(columns, 17);
    std::vector<float> back(4 * static_cast<std::size_t>(stride), 5.0f), expected_back = back;
    kernels.unpack_scaled(random.data(), columns, inv_scales, back.data(), stride);
    for (int i = 0; i < 4; ++i) {
      for (std::int64_t c = 0; c < columns; ++c) {
        expected_back[static_cast<std::size_t>(i * stride + c)] =
            inv_scales[i] * static_cast<float>(trit(random[static_cast<std::size_t>(c)], i));
      }
    }
    CHECK(bits_of(back) == bits_of(expected_back));
  }
}

}  // namespace
}  // namespace bitnet::cpu
