// SPDX-License-Identifier: MIT
// Attention of a few queries in stretches of keys: against a double reference within fp32 rounding,
// and exactly where the sums are exact.
#include "cuda/attention_decode.h"

#include <limits>

#include "tests/cuda_emulator/attention_cases.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

struct Result {
  std::vector<float> out, logsumexp;
  bool operator==(const Result&) const = default;
};

// q is scaled already. With a capacity the position is read from device memory.
template <typename Input = float>
Result run(const AttentionCase& c, const std::vector<float>& q, const std::vector<Input>& k,
           const std::vector<Input>& v, int capacity = 0) {
  const test::Stream stream;
  DeviceArray<float> query(q), out(c.query_size()), logsumexp(c.row_count());
  DeviceArray<Input> key(k), value(v);
  DeviceArray<int> base(std::vector<int>{c.first + 2});
  const int stretches = attention_decode_stretches(capacity == 0 ? c.keys() : capacity);
  const std::size_t partials = c.row_count() * static_cast<std::size_t>(stretches);
  DeviceArray<float> partial_out(partials * static_cast<std::size_t>(c.head_dim));
  DeviceArray<float2> partial_sums(partials);
  const Position first = capacity != 0 ? Position{base.data(), -2} : Position{nullptr, c.first};
  REQUIRE(cuda_error(attention_decode<Input>(
              {query.data(), key.data(), value.data(), out.data(), logsumexp.data(),
               partial_out.data(), partial_sums.data(), first, 1.0f, c.batch, c.queries, c.keys(),
               stretches, c.heads, c.kv_heads, c.head_dim},
              stream)) == "");
  return {out.to_host(), logsumexp.to_host()};
}

const std::vector<AttentionCase> kCases = {
    // batch, queries, heads, kv_heads, head_dim, first
    {1, 1, 1, 1, 16, 0},   {2, 3, 2, 1, 16, 62},  {1, 2, 4, 2, 32, 63},   {1, 1, 3, 3, 48, 64},
    {1, 1, 4, 1, 64, 200}, {2, 1, 5, 1, 80, 127}, {1, 1, 8, 1, 128, 30},  {1, 1, 10, 1, 128, 66},
    {1, 1, 2, 1, 256, 70}, {1, 1, 9, 1, 16, 60},  {1, 1, 1, 1, 16, 2100},
};

TEST_CASE("The attention of few queries is within fp32 rounding of the exact one") {
  const AttentionCase c = GENERATE(from_range(kCases));
  CAPTURE(c.queries, c.heads, c.head_dim, c.first);
  const std::vector<float> q = random_floats(c.query_size(), 1, 0.4f),
                           k = random_floats(c.key_size(), 2), v = random_floats(c.key_size(), 3);
  const ExactAttention exact = exact_attention(c, q, k, v);
  const Result first = run(c, q, k, v);
  for_each_row(c, [&](int b, int t, int h) {
    const std::size_t row = c.row(b, t, h);
    const double score = (c.head_dim + 4) * 0x1p-24 * exact.score_magnitude[row];
    const double rest = (c.keys() + 32) * 0x1p-23;
    CHECK(std::abs(first.logsumexp[row] - exact.logsumexp[row]) <=
          score + rest + 0x1p-22 * std::abs(exact.logsumexp[row]));
    for (int e = 0; e < c.head_dim; ++e) {
      const std::size_t i = c.query(b, t, h) + e;
      CHECK(std::abs(first.out[i] - exact.out[i]) <= (2 * score + rest) * exact.out_magnitude[i]);
    }
  });
  CHECK(run(c, q, k, v, c.keys() + 150) == first);  // stretches without keys do nothing
}

TEST_CASE(
    "The attention of few queries is the same bits in every execution and at every capacity") {
  const AttentionCase c =
      GENERATE(AttentionCase{2, 3, 2, 1, 16, 62}, AttentionCase{1, 1, 5, 1, 80, 127},
               AttentionCase{1, 1, 1, 1, 256, 64});
  const std::vector<float> q = random_floats(c.query_size(), 1, 0.4f),
                           k = random_floats(c.key_size(), 2), v = random_floats(c.key_size(), 3);
  const Result first = run(c, q, k, v);
  test::in_each_execution([&] { CHECK(run(c, q, k, v, c.keys() + 150) == first); });
}

TEST_CASE(
    "The attention of few queries over fp16 keys and values is that over their widened copies") {
  // Each kernel. (Of two GENERATE in one line Catch2 makes one.)
  const int head_dim = GENERATE(16, 64, 80, 256);
  const int group = GENERATE(1, 3, 6);
  const AttentionCase c{2, 2, 2 * group, 2, head_dim, 20};
  const auto q = random_floats(c.query_size(), 4, 0.4f);
  const auto k = narrowed<__half>(random_floats(c.key_size(), 5)),
             v = narrowed<__half>(random_floats(c.key_size(), 6));
  CHECK(run(c, q, k, v) == run(c, q, widened(k), widened(v)));
}

TEST_CASE(
    "The attention of few queries has a row's bits whatever stands beside it or comes later") {
  const AttentionCase all{2, 3, 4, 2, 32, 64};
  const auto q = random_floats(all.query_size(), 7, 0.4f), k = random_floats(all.key_size(), 8),
             v = random_floats(all.key_size(), 9);
  auto poisoned_k = k, poisoned_v = v;
  for (const int at : {0, 40}) {  // of the last key of both key/value heads
    poisoned_k[all.key(1, 66, 0) + static_cast<std::size_t>(at)] = NAN;
    poisoned_v[all.key(1, 66, 0) + static_cast<std::size_t>(at)] = NAN;
  }
  const Result whole = run(all, q, k, v), poisoned = run(all, q, poisoned_k, poisoned_v);
  for (int t = 0; t < 3; ++t) {
    const AttentionCase one{1, 1, 4, 2, 32, 64 + t};
    const auto from = [](const std::vector<float>& x, std::size_t first, std::size_t count) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
      return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(count));
    };
    const std::size_t row = all.query(1, t, 0), keys = all.key(1, 0, 0);
    const Result alone = run(one, from(q, row, one.query_size()), from(k, keys, one.key_size()),
                             from(v, keys, one.key_size()));
    CHECK(alone.out == from(whole.out, row, one.query_size()));
    CHECK(alone.logsumexp[3] == whole.logsumexp[all.row(1, t, 3)]);
    for (std::size_t i = row; i < row + one.query_size(); ++i) {
      if (t < 2) CHECK(poisoned.out[i] == whole.out[i]);
      if (t == 2) CHECK(std::isnan(poisoned.out[i]));
    }
  }
}

TEST_CASE("The attention of few queries refuses shapes that it has no kernel for") {
  AttentionDecode<float> op{};
  op.batch = op.queries = op.keys = op.stretches = op.heads = op.kv_heads = 1;
  for (const int head_dim : {0, 24, 272}) {
    op.head_dim = head_dim;
    CHECK(attention_decode(op, nullptr) == cudaErrorInvalidValue);
  }
  op.head_dim = 32;
  op.heads = 3, op.kv_heads = 2;
  CHECK(attention_decode(op, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
