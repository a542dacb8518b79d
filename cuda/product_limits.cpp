// SPDX-License-Identifier: MIT
#include "cuda/product_limits.h"

#include <fmt/format.h>

#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/bf16_gemm.h"
#include "cuda/int8_gemm.h"
#include "cuda/limit_measuring.h"

namespace bitnet::cuda {
namespace {

constexpr int kLeastProduct = 128, kLargestProduct = 8192;  // rows, columns and depth

// Multiples of 1/128 in (-1, 1).
std::vector<__nv_bfloat16> random_bf16() {
  std::vector<__nv_bfloat16> numbers;
  for (const std::int8_t code : random_codes())
    numbers.push_back(__float2bfloat16_rn(static_cast<float>(code) / 128));
  return numbers;
}

// Operands of square products of n, and room for what they give, fp32 or int32.
template <typename T>
struct Square {
  int n;
  DeviceMemory a, b, y, scales;

  Square(cudaStream_t stream, int size, const std::vector<T>& numbers)
      : n(size),
        a(stream, elements() * static_cast<std::int64_t>(sizeof(T))),
        b(stream, elements() * static_cast<std::int64_t>(sizeof(T))),
        y(stream, 4 * elements()),
        scales(stream, 4 * std::int64_t{n}) {
    a.fill(numbers);
    b.fill(numbers);
    scales.zero();
  }
  std::int64_t elements() const { return std::int64_t{n} * n; }
};

// `multiply` issues a product, or returns false where it cannot.
template <typename T>
LimitMeasurement measure_product(
    cudaStream_t stream, int repeats, const char* name, const std::vector<T>& numbers,
    const std::type_identity_t<std::function<bool(const Square<T>&)>>& multiply) {
  for (int n = kLeastProduct;; n *= 2) {
    const std::int64_t larger = std::int64_t{4} * n * n * (2 * std::int64_t{sizeof(T)} + 4);
    const bool last = n == kLargestProduct || larger > free_device_bytes() / 2;
    const Square<T> square(stream, n, numbers);
    if (!multiply(square)) return {};
    const Issue issue = [&] { multiply(square); };
    if (!last && !long_enough(stream, issue)) continue;
    const double side = n;
    return measure_limit(stream, repeats, fmt::format("{}, {} x {} x {}", name, n, n, n),
                         2 * side * side * side, issue);
  }
}

LimitMeasurement better(LimitMeasurement a, LimitMeasurement b) {
  if (!b.per_second.empty()) keep_better(a, std::move(b));
  return a;
}

}  // namespace

LimitMeasurement measure_int8_products(cudaStream_t stream, int repeats, MatrixProducts& products) {
  const std::vector<std::int8_t> numbers = random_codes();
  using Codes = Square<std::int8_t>;
  return better(measure_product(stream, repeats, "int8_gemm", numbers,
                                [&](const Codes& s) {
                                  const auto* const scale = s.scales.as<float>();
                                  const Int8Gemm product{.a = s.a.as<std::int8_t>(),
                                                         .b = s.b.as<std::int8_t>(),
                                                         .rows = s.n,
                                                         .columns = s.n,
                                                         .depth = s.n,
                                                         .kind = Int8Scale::tensor,
                                                         .scale = scale,
                                                         .group_size = 0,
                                                         .row_scale = scale,
                                                         .addend = nullptr,
                                                         .y = s.y.as<float>()};
                                  check(int8_gemm(product, Int8GemmTile::large, stream),
                                        kMeasuring);
                                  return true;
                                }),
                measure_product(stream, repeats, "cuBLASLt", numbers, [&](const Codes& s) {
                  return products.int8({s.n, s.n, s.n}, s.a.as<std::int8_t>(),
                                       s.b.as<std::int8_t>(), s.y.as<std::int32_t>());
                }));
}

LimitMeasurement measure_bf16_products(cudaStream_t stream, int repeats, MatrixProducts& products) {
  const std::vector<__nv_bfloat16> numbers = random_bf16();
  using Floats = Square<__nv_bfloat16>;
  return better(
      measure_product(stream, repeats, "bf16_gemm", numbers,
                      [&](const Floats& s) {
                        const Bf16Gemm product{.a = s.a.as<__nv_bfloat16>(),
                                               .b = s.b.as<__nv_bfloat16>(),
                                               .y = s.y.as<float>(),
                                               .rows = s.n,
                                               .columns = s.n,
                                               .depth = s.n};
                        check(bf16_gemm(product, Bf16GemmTile::large, stream), kMeasuring);
                        return true;
                      }),
      measure_product(stream, repeats, "cuBLASLt", numbers, [&](const Floats& s) {
        return products.bf16({s.n, s.n, s.n}, s.a.as<__nv_bfloat16>(), s.b.as<__nv_bfloat16>(),
                             s.y.as<float>(), /*accumulate=*/false);
      }));
}

}  // namespace bitnet::cuda
