// SPDX-License-Identifier: MIT
// Attention on tensor cores: exactly where the sums are exact, else against a double reference at
// the operands as they were rounded.
#include "cuda/attention_forward.h"

#include <cuda_bf16.h>

#include <cstdint>
#include <limits>
#include <optional>

#include "cuda/attention_operands.h"
#include "tests/cuda_emulator/attention_cases.h"
#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Result {
  std::vector<float> out, logsumexp;
  bool operator==(const Result&) const = default;
};

// q is scaled already; out has its type, and is widened. With `room` the operands have room for more
// keys, and the position is read from device memory.
template <typename Query, typename Input>
Result run(const AttentionCase& c, const std::vector<Query>& q, const std::vector<Input>& k,
           const std::vector<Input>& v, std::optional<int> room = {}) {
  const test::Stream stream;
  const std::size_t width = static_cast<std::size_t>(attention_operand_width(c.head_dim));
  const int kv_room = room.value_or(c.keys());
  DeviceArray<Query> query(q), out(c.query_size());
  DeviceArray<float> logsumexp(c.row_count());
  DeviceArray<Input> key(k), value(v);
  DeviceArray<int> base(std::vector<int>{c.first - 3});
  const Position first = room ? Position{base.data(), 3} : Position{nullptr, c.first};
  DeviceArray<__nv_bfloat16> operand_q(c.row_count() * width);
  const std::size_t kv_size = static_cast<std::size_t>(c.batch * c.kv_heads * kv_room) * width;
  DeviceArray<__nv_bfloat16> operand_k(kv_size), operand_v(kv_size);
  REQUIRE(cuda_error(query_operand(
              {query.data(), 1.0f, operand_q.data(), c.batch, c.queries, c.heads, c.head_dim},
              stream)) == "");
  REQUIRE(cuda_error(key_value_operands<Input>(
              {key.data(), value.data(), operand_k.data(), operand_v.data(), first, c.queries,
               c.batch, c.keys(), kv_room, c.kv_heads, c.head_dim},
              stream)) == "");
  REQUIRE(cuda_error(attention_forward(
              {operand_q.data(), operand_k.data(), operand_v.data(), out.data(), logsumexp.data(),
               first, c.batch, c.queries, kv_room, c.heads, c.kv_heads, c.head_dim},
              stream)) == "");
  return {widened(out.to_host()), logsumexp.to_host()};
}

std::vector<float> small_integers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> x(count);
  for (float& v : x) v = static_cast<float>(static_cast<int>(random() % 17) - 8);
  return x;
}

// Wider heads, which are the same code, once.
template <typename Body>
void in_executions(const AttentionCase& c, Body body) {
  c.head_dim <= 32 ? test::in_each_execution(body) : body();
}

const std::vector<AttentionCase> kCases = {
    // batch, queries, heads, kv_heads, head_dim, first
    {1, 1, 1, 1, 16, 0},   {2, 17, 2, 1, 16, 0},   {1, 64, 1, 1, 32, 0},   {1, 65, 2, 2, 32, 0},
    {1, 20, 2, 1, 32, 63}, {1, 18, 1, 1, 48, 64},  {1, 33, 1, 1, 64, 100}, {1, 17, 3, 1, 80, 5},
    {1, 16, 1, 1, 96, 48}, {1, 24, 2, 2, 112, 41}, {1, 66, 1, 1, 128, 0},  {1, 5, 1, 1, 256, 62},
};

TEST_CASE("The attention with equal scores is the exact mean of the values that a query sees") {
  const AttentionCase c = GENERATE(from_range(kCases));
  CAPTURE(c.queries, c.head_dim, c.first);
  const std::vector<float> q(c.query_size(), 0.0f), k = random_floats(c.key_size(), 1);
  const std::vector<float> v = small_integers(c.key_size(), 2);
  std::vector<float> expected(c.query_size());
  for_each_row(c, [&](int b, int t, int h) {
    for (int e = 0; e < c.head_dim; ++e) {
      float sum = 0.0f;
      for (int j = 0; j <= c.first + t; ++j) sum += v[c.key(b, j, h) + e];
      expected[c.query(b, t, h) + e] = sum * (1.0f / static_cast<float>(c.first + t + 1));
    }
  });
  in_executions(c, [&] {
    const Result r = run(c, q, k, v);
    CHECK(r.out == expected);
    for_each_row(c, [&](int b, int t, int h) {
      // CUDA's logf is within one unit in the last place.
      const double exact = std::log(static_cast<double>(c.first + t + 1));
      CHECK(std::abs(r.logsumexp[c.row(b, t, h)] - exact) <= 0x1p-22 * exact);
    });
  });
}

TEST_CASE("The attention that one key wins is exactly that key's value") {
  const AttentionCase c = GENERATE(from_range(kCases));
  CAPTURE(c.queries, c.head_dim, c.first);
  // Keys are different signs, the winner's score is at least 200 above the others: 2^-200 is 0.
  std::mt19937 random(3);
  std::vector<float> q(c.query_size()), k(c.key_size()), expected(c.query_size());
  const std::vector<float> v = small_integers(c.key_size(), 4);
  for (std::size_t i = 0; i < k.size(); ++i) {
    const int at = static_cast<int>(i) % c.head_dim;
    const int j = static_cast<int>(i) / (c.head_dim * c.kv_heads) % c.keys();
    const int bit = at < 10 ? j >> at & 1 : static_cast<int>(random() & 1);
    k[i] = bit != 0 ? 1.0f : -1.0f;
  }
  for_each_row(c, [&](int b, int t, int h) {
    const int winner = static_cast<int>(random() % static_cast<unsigned>(c.first + t + 1));
    for (int e = 0; e < c.head_dim; ++e) {
      q[c.query(b, t, h) + e] = 100.0f * k[c.key(b, winner, h) + e];
      expected[c.query(b, t, h) + e] = v[c.key(b, winner, h) + e];
    }
  });
  CHECK(run(c, q, k, v).out == expected);
}

TEST_CASE("The attention is within the rounding of its weights to bf16 of the exact one") {
  const AttentionCase c = GENERATE(from_range(kCases));
  CAPTURE(c.queries, c.head_dim, c.first);
  const std::vector<float> q = test::rounded_to_bf16(random_floats(c.query_size(), 5, 0.4f)),
                           k = test::rounded_to_bf16(random_floats(c.key_size(), 6)),
                           v = test::rounded_to_bf16(random_floats(c.key_size(), 7));
  const ExactAttention exact = exact_attention(c, q, k, v);
  const Result r = run(c, q, k, v);
  for_each_row(c, [&](int b, int t, int h) {
    const std::size_t row = c.row(b, t, h);
    // fp32 sums, truncated perhaps; a score's error counts in the weight and in their sum.
    const double score = (c.head_dim + 4) * 0x1p-23 * exact.score_magnitude[row];
    const double rest = (c.keys() + 32) * 0x1p-22;
    CHECK(std::abs(r.logsumexp[row] - exact.logsumexp[row]) <=
          score + rest + 0x1p-22 * std::abs(exact.logsumexp[row]));
    for (int e = 0; e < c.head_dim; ++e) {
      const std::size_t i = c.query(b, t, h) + e;
      CHECK(std::abs(r.out[i] - exact.out[i]) <=
            (2 * score + rest + 0x1p-8) * exact.out_magnitude[i]);
    }
  });
}

TEST_CASE("The attention has the same bits when the position is read from the device") {
  const AttentionCase c{1, 21, 2, 1, 32, 50};
  const auto q = random_floats(c.query_size(), 8, 0.4f), k = random_floats(c.key_size(), 9),
             v = random_floats(c.key_size(), 10);
  const Result expected = run(c, q, k, v);
  test::in_each_execution([&] { CHECK(run(c, q, k, v, 200) == expected); });
}

TEST_CASE("The attention over fp16 keys and values is that over their widened copies") {
  const AttentionCase c{2, 20, 2, 1, 48, 7};
  const auto q = random_floats(c.query_size(), 8, 0.4f);
  const auto k = narrowed<__half>(random_floats(c.key_size(), 9)),
             v = narrowed<__half>(random_floats(c.key_size(), 10));
  const Result expected = run(c, q, widened(k), widened(v));
  test::in_each_execution([&] { CHECK(run(c, q, k, v) == expected); });
}

TEST_CASE("The attention of bf16 tensors is that of their widened copies, rounded once") {
  const AttentionCase c = GENERATE(from_range(kCases));
  CAPTURE(c.queries, c.head_dim, c.first);
  const auto q = narrowed<__nv_bfloat16>(random_floats(c.query_size(), 17, 0.4f)),
             k = narrowed<__nv_bfloat16>(random_floats(c.key_size(), 18)),
             v = narrowed<__nv_bfloat16>(random_floats(c.key_size(), 19));
  Result expected = run(c, widened(q), widened(k), widened(v));
  expected.out = test::rounded_to_bf16(expected.out);
  in_executions(c, [&] { CHECK(run(c, q, k, v) == expected); });
}

TEST_CASE("The attention's bits are changed by no later key or value, whatever it is") {
  const AttentionCase c{1, 70, 2, 1, 32, 10};
  const auto q = random_floats(c.query_size(), 11, 0.4f), k = random_floats(c.key_size(), 12),
             v = random_floats(c.key_size(), 13);
  const Result before = run(c, q, k, v);
  const float number = GENERATE(123.0f, kNan, std::numeric_limits<float>::infinity());
  const bool of_values = GENERATE(false, true);
  const int changed = GENERATE(12, 47, 63, 64, 79);
  auto other_k = k, other_v = v;
  (of_values ? other_v : other_k)[c.key(0, changed, 0) + 9] = number;
  const Result after = run(c, q, other_k, other_v);
  for_each_row(c, [&](int b, int t, int h) {
    const bool sees = c.first + t >= changed;
    for (int e = 0; e < c.head_dim; ++e) {
      const std::size_t i = c.query(b, t, h) + e;
      if (!sees) CHECK(after.out[i] == before.out[i]);
      if (sees && of_values && number != 123.0f && e / 8 == 1) CHECK(std::isnan(after.out[i]));
      if (sees && std::isnan(number)) CHECK(std::isnan(after.out[i]));
    }
  });
}

TEST_CASE("The attention of a row has the same bits whatever stands beside it") {
  const AttentionCase all{2, 70, 2, 1, 32, 0};
  const auto q = random_floats(all.query_size(), 14, 0.4f), k = random_floats(all.key_size(), 15),
             v = random_floats(all.key_size(), 16);
  const Result whole = run(all, q, k, v);
  for (const int t : {0, 15, 16, 63, 64, 69}) {
    const AttentionCase one{1, 1, 2, 1, 32, t};
    const auto from = [](const std::vector<float>& x, std::size_t first, std::size_t count) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
      return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(count));
    };
    const std::size_t row = all.query(1, t, 0), keys = all.key(1, 0, 0);
    const Result alone = run(one, from(q, row, one.query_size()), from(k, keys, one.key_size()),
                             from(v, keys, one.key_size()));
    CHECK(alone.out == from(whole.out, row, one.query_size()));
    CHECK(alone.logsumexp[1] == whole.logsumexp[all.row(1, t, 1)]);
  }
}

TEST_CASE("The attention refuses shapes that it has no kernel for") {
  AttentionForward op{nullptr, nullptr, nullptr, nullptr, nullptr, {}, 1, 1, 1, 1, 1, 24};
  CHECK(attention_forward(op, nullptr) == cudaErrorInvalidValue);
  op.head_dim = 272;
  CHECK(attention_forward(op, nullptr) == cudaErrorInvalidValue);
  op.head_dim = 32;
  op.heads = 3, op.kv_heads = 2;
  CHECK(attention_forward(op, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
