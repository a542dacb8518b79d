// SPDX-License-Identifier: MIT
// The rotation against plain loops: equal bits in every execution.
#include "cuda/rope.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/cuda_emulator/row_order.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using test::random_floats;

struct Case {
  int batch, tokens, heads, head_dim, first;
};

std::vector<float> turned(const Case& c, std::vector<float> x, const std::vector<float>& table,
                          float sign) {
  const int half = c.head_dim / 2;
  for (int row = 0; row < c.batch * c.tokens; ++row) {
    const float* angles = &table[static_cast<std::size_t>((c.first + row % c.tokens) * c.head_dim)];
    for (int head = 0; head < c.heads; ++head) {
      float* pair = &x[static_cast<std::size_t>((row * c.heads + head) * c.head_dim)];
      for (int i = 0; i < half; ++i, ++pair) {
        const float a = pair[0], b = pair[half], cosine = angles[i], sine = sign * angles[half + i];
        pair[0] = std::fma(a, cosine, 0.0f - b * sine);
        pair[half] = std::fma(b, cosine, a * sine);
      }
    }
  }
  return x;
}

TEST_CASE(
    "The rotation has the bits of the plain loops, there and back, at both kinds of position") {
  const Case c = GENERATE(Case{1, 1, 1, 16, 0}, Case{2, 3, 5, 16, 4}, Case{1, 2, 65, 32, 1},
                          Case{2, 2, 3, 6, 1}, Case{1, 1, 2, 2, 6});
  CAPTURE(c.batch, c.tokens, c.heads, c.head_dim, c.first);
  const int positions = c.first + c.tokens;
  const std::vector<float> x = random_floats(c.batch * c.tokens * c.heads * c.head_dim, 1),
                           table = random_floats(positions * c.head_dim, 2);
  const std::vector<float> forward = turned(c, x, table, 1.0f);
  const std::vector<float> backward = turned(c, forward, table, -1.0f);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> data(x), angles(table);
    DeviceArray<int> base(std::vector<int>{c.first + 1});
    Rope op{data.data(), angles.data(), {nullptr, c.first}, 1.0f, c.batch * c.tokens,
            c.tokens,    c.heads,       c.head_dim};
    REQUIRE(cuda_error(rope(op, stream)) == "");
    CHECK(data.to_host() == forward);
    op.first = {base.data(), -1};
    op.sign = -1.0f;
    REQUIRE(cuda_error(rope(op, stream)) == "");
    CHECK(data.to_host() == backward);
  });
}

TEST_CASE("The rotation of bf16 is that of its floats, rounded once") {
  const Case c = GENERATE(Case{2, 3, 5, 16, 4}, Case{2, 2, 3, 6, 1}, Case{1, 1, 2, 2, 6});
  CAPTURE(c.head_dim);
  const int count = c.batch * c.tokens * c.heads * c.head_dim;
  const auto x = test::to_bf16(random_floats(count, 3));
  const std::vector<float> table = random_floats((c.first + c.tokens) * c.head_dim, 4);
  const auto expected = test::rounded_to_bf16(turned(c, test::to_floats(x), table, -1.0f));
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<__nv_bfloat16> data(x);
    DeviceArray<float> angles(table);
    REQUIRE(cuda_error(rope({data.data(),
                             angles.data(),
                             {nullptr, c.first},
                             -1.0f,
                             c.batch * c.tokens,
                             c.tokens,
                             c.heads,
                             c.head_dim},
                            stream)) == "");
    CHECK(test::to_floats(data.to_host()) == expected);
  });
}

// q, k, v of one sequence; `sentinel` is what the rows of the caches hold before.
template <typename Cache>
void check_append(const Case& c, int kv_heads, Cache sentinel) {
  const int positions = c.first + c.tokens + 2, kv_width = kv_heads * c.head_dim;
  const auto numbers = [&](int heads, unsigned seed) {
    return random_floats(c.tokens * heads * c.head_dim, seed);
  };
  const std::vector<float> q = numbers(c.heads, 5), k = numbers(kv_heads, 6),
                           v = numbers(kv_heads, 7),
                           table = random_floats(positions * c.head_dim, 8);
  const Case of_keys{1, c.tokens, kv_heads, c.head_dim, c.first};
  const std::vector<float> turned_q = turned(c, q, table, 1.0f),
                           turned_k = turned(of_keys, k, table, 1.0f);
  const auto cache_with = [&](const std::vector<float>& rows) {
    std::vector<float> all(static_cast<std::size_t>(positions * kv_width),
                           static_cast<float>(sentinel));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      all[static_cast<std::size_t>(c.first * kv_width) + i] =
          static_cast<float>(static_cast<Cache>(rows[i]));
    }
    return all;
  };
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> query(q), key(k), value(v), angles(table);
    const std::vector<Cache> before(static_cast<std::size_t>(positions * kv_width), sentinel);
    DeviceArray<Cache> keys(before), values(before);
    DeviceArray<int> base(std::vector<int>{c.first + 1});
    REQUIRE(cuda_error(rope_append(RopeAppend<Cache>{query.data(),
                                                     key.data(),
                                                     value.data(),
                                                     keys.data(),
                                                     values.data(),
                                                     angles.data(),
                                                     {base.data(), -1},
                                                     c.tokens,
                                                     c.heads,
                                                     kv_heads,
                                                     c.head_dim},
                                   stream)) == "");
    CHECK(query.to_host() == turned_q);
    CHECK(key.to_host() == turned_k);
    const auto widened = [](const std::vector<Cache>& x) {
      return std::vector<float>(x.begin(), x.end());
    };
    CHECK(widened(keys.to_host()) == cache_with(turned_k));
    CHECK(widened(values.to_host()) == cache_with(v));
  });
}

TEST_CASE("The rotation that appends leaves turned keys and values in a cache of either type") {
  // One block and several; heads without whole quads; more values than turned fours.
  const Case c = GENERATE(Case{1, 1, 1, 16, 0}, Case{1, 3, 20, 32, 2}, Case{1, 2, 3, 6, 1},
                          Case{1, 1, 65, 16, 3});
  const int kv_heads = c.heads == 20 ? 5 : c.heads;
  CAPTURE(c.tokens, c.heads, c.head_dim);
  check_append<float>(c, kv_heads, 7.0f);
  check_append<__half>(c, kv_heads, __float2half_rn(7.0f));
}

TEST_CASE("The rotation refuses an odd head") {
  CHECK(rope({nullptr, nullptr, {}, 1.0f, 1, 1, 1, 3}, nullptr) == cudaErrorInvalidValue);
  RopeAppend<float> op{};
  op.tokens = op.heads = op.kv_heads = 1, op.head_dim = 3;
  CHECK(rope_append(op, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
