// SPDX-License-Identifier: MIT
// Every table of panel kernels against the sums written out. Depends on bitnet_kernels alone.
#include "core/cpu/panel_kernels.h"
#include "core/cpu/panel_scope.h"

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "tests/cpu/available_isas.h"
#include "tests/support/catch.h"

namespace bitnet::cpu {
namespace {

const PanelKernels& generated_kernels() {
  const Isa isa = GENERATE(from_range(test::available_isas()));
  const PanelKernels* kernels = panel_kernels(isa);
  REQUIRE(kernels != nullptr);
  return *kernels;
}

template <typename T>
T& at(std::vector<T>& v, std::int64_t i) {
  return v.at(static_cast<std::size_t>(i));
}

std::vector<std::int8_t> random_values(std::int64_t count, int lowest, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> x(static_cast<std::size_t>(count));
  const auto range = static_cast<unsigned>(128 - lowest);
  for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % range) + lowest);
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

int trit(std::uint8_t byte, std::int64_t i) { return ((byte >> (2 * i)) & 3) - 1; }

std::vector<std::int32_t> row_sums(const std::vector<std::int8_t>& rows, std::int64_t stride,
                                   std::int64_t elements, std::int64_t count) {
  std::vector<std::int32_t> sums(static_cast<std::size_t>(count));
  for (std::int64_t t = 0; t < count; ++t) {
    for (std::int64_t k = 0; k < elements; ++k) {
      at(sums, t) += rows.at(static_cast<std::size_t>(t * stride + k));
    }
  }
  return sums;
}

// What the products are called with: `columns` elements of `count` rows, and where they go.
struct Rows {
  Rows(std::int64_t columns_, std::int64_t count_, std::vector<std::int8_t> values_)
      : columns(columns_),
        count(count_),
        stride(columns_ + 64),
        values(std::move(values_)),
        sums(row_sums(values, stride, columns, count)),
        acc(static_cast<std::size_t>((count + 1) * kPanelWidth)) {
    for (std::size_t i = 0; i < acc.size(); ++i) acc[i] = static_cast<std::int32_t>(i * 7919);
  }
  std::int64_t columns, count, stride;
  std::vector<std::int8_t> values;
  std::vector<std::int32_t> sums, acc;  // acc has one row more, which must stay untouched
};

// Runs `products` and compares it with the sum over k of weight(o, k) * row[k].
template <typename Weight, typename Products>
void check_products(Rows rows, bool accumulate, const Weight& weight, const Products& products) {
  std::vector<std::int32_t> expected = rows.acc;
  for (std::int64_t t = 0; t < rows.count; ++t) {
    for (std::int64_t o = 0; o < kPanelWidth; ++o) {
      std::int32_t sum = accumulate ? at(expected, t * kPanelWidth + o) : 0;
      for (std::int64_t k = 0; k < rows.columns; ++k) {
        sum += weight(o, k) * at(rows.values, t * rows.stride + k);
      }
      at(expected, t * kPanelWidth + o) = sum;
    }
  }
  products(rows, accumulate);
  CHECK(rows.acc == expected);
}

TEST_CASE("products of a forward panel are the ternary dot products of its rows") {
  const PanelKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t columns : {64, 128, 192, 704}) {
    for (const std::int64_t tokens :
         {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 31, 32, 33, 48, 49, 64}) {
      const std::int64_t packed_rows = 1 + (tokens * 5 + columns / 64) % 16;
      const bool accumulate = tokens % 2 == 1;
      INFO("columns " << columns << ", tokens " << tokens << ", packed rows " << packed_rows);
      const std::int64_t stride = columns + 128;
      auto packed = random_packed(stride * packed_rows, 3);
      std::vector<std::uint8_t> panel(static_cast<std::size_t>(columns / 4 * kPanelStep), 0xee);
      kernels.forward_panel(packed.data(), stride, packed_rows, columns, panel.data());
      Rows rows(columns, tokens, random_values((columns + 64) * tokens, -128, 5));
      check_products(
          rows, accumulate,
          [&](std::int64_t o, std::int64_t k) {
            const std::int64_t i = o / 16, j = o % 16;
            return j < packed_rows ? trit(at(packed, j * stride + k), i) : 0;
          },
          [&](Rows& r, bool add) {
            const PanelScope scope(kernels);
            kernels.ternary_products(panel.data(), r.columns / 4, r.values.data(), r.stride,
                                     r.sums.data(), r.count, add, r.acc.data());
          });
    }
  }
}

TEST_CASE("products of an input gradient panel are the dot products of its columns") {
  const PanelKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t packed_rows : {1, 2, 7, 15, 16, 17, 39, 40, 41, 96}) {
    for (const std::int64_t tokens : {1, 4, 6, 9, 16, 17, 32, 33, 50}) {
      INFO("packed rows " << packed_rows << ", tokens " << tokens);
      const std::int64_t stride = 192;
      auto packed = random_packed(stride * packed_rows, 7);
      std::vector<std::uint8_t> panel(static_cast<std::size_t>(packed_rows * kPanelStep), 0xee);
      kernels.input_gradient_panel(packed.data(), stride, packed_rows, panel.data());
      Rows rows(4 * packed_rows, tokens, random_values((4 * packed_rows + 64) * tokens, -127, 5));
      check_products(
          rows, tokens % 2 == 0,
          [&](std::int64_t o, std::int64_t k) {
            return trit(at(packed, k / 4 * stride + o), k % 4);
          },
          [&](Rows& r, bool add) {
            const PanelScope scope(kernels);
            kernels.ternary_products(panel.data(), packed_rows, r.values.data(), r.stride,
                                     r.sums.data(), r.count, add, r.acc.data());
          });
    }
  }
}

TEST_CASE("products of a weight gradient panel are the sums over its tokens") {
  const PanelKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t tokens : {1, 2, 3, 4, 5, 61, 64, 65, 131, 256}) {
    for (const std::int64_t outputs : {1, 2, 3, 4, 5, 6, 7, 11, 16, 17, 32, 33, 47}) {
      INFO("tokens " << tokens << ", outputs " << outputs);
      const std::int64_t stride = 192, steps = (tokens + 3) / 4;
      auto x = random_values(stride * tokens, -127, 11);
      std::vector<std::int8_t> panel(static_cast<std::size_t>(steps * kPanelStep), 0x5e);
      kernels.weight_gradient_panel(x.data(), stride, tokens, panel.data());
      Rows rows(4 * steps, outputs, random_values((4 * steps + 64) * outputs, -127, 13));
      check_products(
          rows, outputs % 2 == 0,
          [&](std::int64_t o, std::int64_t k) { return k < tokens ? at(x, k * stride + o) : 0; },
          [&](Rows& r, bool add) {
            const PanelScope scope(kernels);
            kernels.signed_products(panel.data(), steps, r.values.data(), r.stride, r.sums.data(),
                                    r.count, add, r.acc.data());
          });
    }
  }
}

TEST_CASE("row_sums is the sum of each row") {
  const PanelKernels& kernels = generated_kernels();
  INFO(kernels.name);
  if (kernels.row_sums == nullptr) return;
  for (const std::int64_t columns : {64, 128, 704}) {
    for (const std::int64_t count : {0, 1, 3, 4, 5, 13}) {
      INFO("columns " << columns << ", rows " << count);
      const std::int64_t stride = columns + 64;
      const auto rows = random_values(stride * count, -128, 19);
      std::vector<std::int32_t> sums(static_cast<std::size_t>(count));
      kernels.row_sums(rows.data(), stride, columns, count, sums.data());
      CHECK(sums == row_sums(rows, stride, columns, count));
    }
  }
}

TEST_CASE("ternary products hold the largest sums of long rows") {
  const PanelKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const int code : {0, 1, 2}) {
    for (const int value : {-128, 127}) {
      const std::int64_t columns = 16384, tokens = 7;
      const std::vector<std::uint8_t> packed(columns * 16, static_cast<std::uint8_t>(code * 0x55));
      std::vector<std::uint8_t> panel(columns / 4 * kPanelStep);
      kernels.forward_panel(packed.data(), columns, 16, columns, panel.data());
      const std::vector<std::int8_t> rows(columns * tokens, static_cast<std::int8_t>(value));
      const std::vector<std::int32_t> sums(tokens, value * 16384);
      std::vector<std::int32_t> acc(tokens * kPanelWidth, -1);
      const PanelScope scope(kernels);
      kernels.ternary_products(panel.data(), columns / 4, rows.data(), columns, sums.data(), tokens,
                               false, acc.data());
      CHECK(acc == std::vector<std::int32_t>(acc.size(), (code - 1) * value * 16384));
    }
  }
}

TEST_CASE("signed products hold the largest sums of long rows") {
  const PanelKernels& kernels = generated_kernels();
  INFO(kernels.name);
  const std::int64_t tokens = 1 << 16, outputs = 7;  // 127 * 127 * 2^16 < 2^31
  for (const int value : {-127, 127}) {
    for (const int row : {-127, 127}) {
      const std::vector<std::int8_t> x(tokens * kPanelWidth, static_cast<std::int8_t>(value));
      std::vector<std::int8_t> panel(x.size());
      kernels.weight_gradient_panel(x.data(), kPanelWidth, tokens, panel.data());
      const std::vector<std::int8_t> rows(tokens * outputs, static_cast<std::int8_t>(row));
      const std::vector<std::int32_t> sums(outputs, row * (1 << 16));
      std::vector<std::int32_t> acc(outputs * kPanelWidth, -1);
      const PanelScope scope(kernels);
      kernels.signed_products(panel.data(), tokens / 4, rows.data(), tokens, sums.data(), outputs,
                              false, acc.data());
      CHECK(acc == std::vector<std::int32_t>(acc.size(), value * row * (1 << 16)));
    }
  }
}

TEST_CASE("a panel's products are scaled, added to the residual and put in place") {
  const PanelKernels& kernels = generated_kernels();
  INFO(kernels.name);
  std::mt19937 random(17);
  const std::int64_t tokens = 3, quarter = 37, y_stride = 4 * quarter + 5;
  for (std::int64_t packed_rows = 1; packed_rows <= 16; ++packed_rows) {
    for (const int residual_kind : {0, 1, 2}) {  // none, apart, in place
      INFO("packed rows " << packed_rows << ", residual " << residual_kind);
      std::vector<std::int32_t> acc(tokens * kPanelWidth);
      for (auto& v : acc) v = static_cast<std::int32_t>(random() % 2'000'000) - 1'000'000;
      const std::vector<float> act_scale = {0.0123f, 3.7e-5f, 1.9f};
      const float weight_scale = 0.0371f;
      std::vector<float> residual(static_cast<std::size_t>(tokens * y_stride));
      for (auto& v : residual) v = static_cast<float>(random() % 10'000) * 0.37f;
      std::vector<float> y =
          residual_kind == 2 ? residual : std::vector<float>(residual.size(), -1);
      std::vector<float> expected = y;
      for (std::int64_t t = 0; t < tokens; ++t) {
        const float scale = act_scale[static_cast<std::size_t>(t)] * weight_scale;
        for (std::int64_t i = 0; i < 4; ++i) {
          for (std::int64_t j = 0; j < packed_rows; ++j) {
            const std::int64_t place = t * y_stride + i * quarter + j;
            const float product = scale * static_cast<float>(at(acc, t * kPanelWidth + 16 * i + j));
            at(expected, place) = residual_kind == 0 ? product : at(residual, place) + product;
          }
        }
      }
      const float* added = residual_kind == 0   ? nullptr
                           : residual_kind == 1 ? residual.data()
                                                : y.data();
      kernels.store_products(acc.data(), tokens, packed_rows, act_scale.data(), weight_scale, added,
                             y.data(), y_stride, quarter);
      CHECK(y == expected);
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
