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

TEST_CASE("The rotation refuses an odd head") {
  CHECK(rope({nullptr, nullptr, {}, 1.0f, 1, 1, 1, 3}, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
