// SPDX-License-Identifier: MIT
// Attention's operands against plain loops over their rows.
#include "cuda/attention_operands.h"

#include <limits>

#include "tests/cuda_emulator/attention_cases.h"
#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using Floats = std::vector<float>;

constexpr float kUnwritten = 123.0f;

struct Shape {
  int batch, tokens, heads, head_dim;
  int width() const { return attention_operand_width(head_dim); }
  std::size_t size() const { return static_cast<std::size_t>(batch) * tokens * heads * head_dim; }
  std::size_t at(int b, int t, int h) const {
    return ((static_cast<std::size_t>(b) * tokens + t) * heads + h) * head_dim;
  }
};

// [B, heads, room, P]: element(source of a row's first element, e) in the first `rows` rows of each
// head, zeros where e is none of its elements.
template <typename Element>
Floats operand(const Shape& s, int room, int rows, Element element) {
  const std::size_t width = static_cast<std::size_t>(s.width());
  Floats y(static_cast<std::size_t>(s.batch * s.heads * room) * width, kUnwritten);
  for (int b = 0; b < s.batch; ++b) {
    for (int h = 0; h < s.heads; ++h) {
      for (int t = 0; t < rows; ++t) {
        float* const row =
            y.data() + static_cast<std::size_t>((b * s.heads + h) * room + t) * width;
        for (int e = 0; e < s.width(); ++e) {
          row[e] = e < s.head_dim ? element(s.at(b, t, h), static_cast<std::size_t>(e)) : 0.0f;
        }
      }
    }
  }
  return y;
}

// NaN is one number.
void check_same(const Floats& actual, const Floats& expected) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(expected[i])) {
      CHECK(std::isnan(actual[i]));
    } else {
      CHECK(actual[i] == expected[i]);
    }
  }
}

DeviceArray<__nv_bfloat16> unwritten(std::size_t size) {
  return DeviceArray<__nv_bfloat16>(narrowed<__nv_bfloat16>(Floats(size, kUnwritten)));
}

// Every width, with padding and without; more than a block.
const std::vector<Shape> kShapes = {{1, 1, 1, 16},  {2, 5, 3, 32},  {1, 3, 2, 48}, {3, 2, 1, 64},
                                    {1, 40, 2, 80}, {1, 2, 1, 112}, {1, 1, 1, 256}};

template <typename T>
void check_queries(const Shape& s) {
  const std::vector<T> x = narrowed<T>(random_floats(s.size(), 1));
  const Floats wide = widened(x);
  const Floats expected = operand(s, s.tokens, s.tokens, [&](std::size_t from, std::size_t e) {
    return widened(narrowed<__nv_bfloat16>(wide[from + e] * 0.3f));
  });
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<T> from(x);
    DeviceArray<__nv_bfloat16> to = unwritten(expected.size());
    REQUIRE(cuda_error(query_operand(
                {from.data(), 0.3f, to.data(), s.batch, s.tokens, s.heads, s.head_dim}, stream)) ==
            "");
    check_same(widened(to.to_host()), expected);
  });
}

TEST_CASE("The attention's queries are scaled, rounded, put head by head and padded with zeros") {
  const Shape s = GENERATE(from_range(kShapes));
  CAPTURE(s.batch, s.tokens, s.heads, s.head_dim);
  check_queries<float>(s);
  check_queries<__nv_bfloat16>(s);
}

// With room for two more rows, and the position in device memory.
template <typename T>
void check_keys_and_values(const Shape& s) {
  Floats values = random_floats(s.size(), 3);
  // The lower and the upper one of a pair, each in eight elements of its own.
  values[2] = std::numeric_limits<float>::quiet_NaN();
  values[9] = -std::numeric_limits<float>::infinity();
  const std::vector<T> k = narrowed<T>(random_floats(s.size(), 2)), v = narrowed<T>(values);
  const Floats wide_k = test::rounded_to_bf16(widened(k)),
               wide_v = test::rounded_to_bf16(widened(v));
  const int rows = s.tokens - 1, room = s.tokens + 2;  // the last token is not to be converted
  const auto finite = [&](std::size_t at) {            // eight elements from here
    bool all = true;
    for (std::size_t i = 0; i < 8; ++i) all = all && std::isfinite(wide_v[at + i]);
    return all;
  };
  const Floats expected_k = operand(s, room, rows, [&](std::size_t from, std::size_t e) {
    return finite(from + e / 8 * 8) ? wide_k[from + e] : NAN;
  });
  const Floats expected_v = operand(s, room, rows, [&](std::size_t from, std::size_t e) {
    return finite(from + e / 8 * 8) ? wide_v[from + e] : 0.0f;
  });
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<T> from_k(k), from_v(v);
    DeviceArray<int> base(std::vector<int>{7});
    DeviceArray<__nv_bfloat16> to_k = unwritten(expected_k.size()),
                               to_v = unwritten(expected_v.size());
    REQUIRE(cuda_error(key_value_operands<T>({.k = from_k.data(),
                                              .v = from_v.data(),
                                              .operand_k = to_k.data(),
                                              .operand_v = to_v.data(),
                                              .first_position = {base.data(), rows - 1 - 7},
                                              .queries = 1,
                                              .batch = s.batch,
                                              .keys = s.tokens,
                                              .room = room,
                                              .kv_heads = s.heads,
                                              .head_dim = s.head_dim},
                                             stream)) == "");
    check_same(widened(to_k.to_host()), expected_k);
    check_same(widened(to_v.to_host()), expected_v);
  });
}

TEST_CASE(
    "The attention's keys and values that are seen are converted, infinite ones as NaN keys") {
  Shape s = GENERATE(from_range(kShapes));
  CAPTURE(s.batch, s.tokens, s.heads, s.head_dim);
  ++s.tokens;
  check_keys_and_values<float>(s);
  check_keys_and_values<__half>(s);
  check_keys_and_values<__nv_bfloat16>(s);
}

TEST_CASE("The attention's operands are refused in shapes that there is no kernel for") {
  QueryOperand q{};
  q.batch = q.tokens = q.heads = 1;
  KeyValueOperands<float> kv{};
  kv.batch = kv.keys = kv.room = kv.kv_heads = kv.queries = 1;
  for (const int head_dim : {0, 24, 272}) {
    q.head_dim = kv.head_dim = head_dim;
    CHECK(query_operand(q, nullptr) == cudaErrorInvalidValue);
    CHECK(key_value_operands(kv, nullptr) == cudaErrorInvalidValue);
  }
  q.head_dim = kv.head_dim = 16;
  q.tokens = kv.room = 0;
  CHECK(query_operand(q, nullptr) == cudaErrorInvalidValue);
  CHECK(key_value_operands(kv, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
