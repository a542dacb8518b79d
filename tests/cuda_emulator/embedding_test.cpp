// SPDX-License-Identifier: MIT
// The embedding and its gradient against plain loops: equal bits in every execution.
#include "cuda/embedding.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/cuda_emulator/plain_sums.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

using Tokens = std::vector<std::int32_t>;

std::int64_t signed_size(std::size_t size) { return static_cast<std::int64_t>(size); }

// Every third is 0, so that one token has many rows.
Tokens some_tokens(std::size_t rows, std::size_t vocabulary) {
  Tokens tokens(rows);
  for (std::size_t i = 0; i < rows; ++i) {
    tokens[i] = i % 3 == 0 ? 0 : static_cast<std::int32_t>(i * 7919 % vocabulary);
  }
  return tokens;
}

template <typename Table>
std::vector<float> run(const Tokens& tokens, const std::vector<Table>& table, std::size_t width) {
  const test::Stream stream;
  DeviceArray<std::int32_t> ids(tokens);
  DeviceArray<Table> values(table);
  DeviceArray<float> y(tokens.size() * width);
  const Embedding<Table> op{ids.data(),
                            values.data(),
                            y.data(),
                            signed_size(tokens.size()),
                            signed_size(table.size() / width),
                            signed_size(width)};
  REQUIRE(cuda_error(embedding(op, stream)) == "");
  return y.to_host();
}

std::vector<float> expected_rows(const Tokens& tokens, const std::vector<float>& table,
                                 std::size_t width) {
  std::vector<float> y;
  for (const std::int32_t token : tokens) {
    const auto from = table.begin() + static_cast<std::ptrdiff_t>(token) * signed_size(width);
    y.insert(y.end(), from, from + signed_size(width));
  }
  return y;
}

TEST_CASE("The embedding copies rows of any width, and widens bf16 exactly") {
  const std::size_t width = GENERATE(1, 3, 16, 33, 64, 1024, 1028);  // 1024 columns of a block
  const std::size_t rows = GENERATE(1, 17);
  CAPTURE(width, rows);
  const Tokens tokens = some_tokens(rows, 5);
  std::vector<float> table = test::plain_numbers(5 * width, 9);
  const std::vector<float> expected = expected_rows(tokens, table, width);
  std::vector<__nv_bfloat16> halves;
  for (float& v : table) {
    halves.push_back(__float2bfloat16_rn(v));
    v = __bfloat162float(halves.back());
  }
  const std::vector<float> rounded = expected_rows(tokens, table, width);
  test::in_each_execution([&] {
    CHECK(run(tokens, test::plain_numbers(5 * width, 9), width) == expected);
    CHECK(run(tokens, halves, width) == rounded);
  });
}

TEST_CASE("The embedding takes more rows than a grid has blocks") {
  const Tokens tokens = some_tokens(8192 * 2 + 3, 3);  // 2 rows of 512 columns for a block
  const std::vector<float> table = test::plain_numbers(3 * 512, 10);
  CHECK(run(tokens, table, 512) == expected_rows(tokens, table, 512));
}

TEST_CASE("The embedding of a token outside the table is NaN") {
  const std::vector<float> y = run(Tokens{1, -1, 2}, std::vector<float>(8, 1.0f), 4);
  for (std::size_t k = 0; k < 12; ++k) CHECK(std::isnan(y[k]) == (k >= 4));
}

std::vector<float> run_backward(const Tokens& tokens, const std::vector<float>& dy,
                                const std::vector<float>& dtable, std::size_t width) {
  const test::Stream stream;
  DeviceArray<std::int32_t> ids(tokens);
  DeviceArray<float> gradient(dy), table(dtable);
  const EmbeddingBackward op{ids.data(),
                             gradient.data(),
                             table.data(),
                             signed_size(tokens.size()),
                             signed_size(dtable.size() / width),
                             signed_size(width)};
  REQUIRE(cuda_error(embedding_backward(op, stream)) == "");
  return table.to_host();
}

std::vector<float> expected_gradient(const Tokens& tokens, const std::vector<float>& dy,
                                     std::vector<float> dtable, std::size_t width) {
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    const auto first = static_cast<std::size_t>(tokens[row]) * width;
    for (std::size_t c = 0; c < width; ++c) dtable[first + c] += dy[row * width + c];
  }
  return dtable;
}

TEST_CASE("The embedding's gradient adds rows in ascending order to what was there") {
  // 1024 tokens are searched at once; 128 quads of columns are a block.
  const auto [rows, width] = GENERATE(table<std::size_t, std::size_t>(
      {{1, 1}, {33, 3}, {1024, 16}, {1025, 4}, {2100, 5}, {40, 512}, {40, 516}}));
  const std::size_t vocabulary = 11;
  CAPTURE(rows, width);
  const Tokens tokens = some_tokens(rows, vocabulary - 1);  // the last has no row
  const std::vector<float> dy = test::plain_numbers(rows * width, 11),
                           before = test::plain_numbers(vocabulary * width, 12);
  const std::vector<float> expected = expected_gradient(tokens, dy, before, width);
  test::in_each_execution([&] { CHECK(run_backward(tokens, dy, before, width) == expected); });
}

TEST_CASE("The embedding's gradient shows what is not finite and passes over other tokens") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Tokens tokens = {0, -1, 1, 3};
  const std::vector<float> dy = {kInfinity, 1.0f, std::nanf(""), 1.0f};
  const std::vector<float> dtable = run_backward(tokens, dy, {1.0f, 2.0f, 3.0f}, 1);
  CHECK(dtable[0] == kInfinity);
  CHECK(std::isnan(dtable[1]));
  CHECK(dtable[2] == 3.0f);
}

TEST_CASE("The embedding refuses sizes that do not fit") {
  CHECK(embedding(Embedding<float>{nullptr, nullptr, nullptr, 0, 4, 4}, nullptr) ==
        cudaErrorInvalidValue);
  CHECK(embedding_backward({nullptr, nullptr, nullptr, 1, 4, 0}, nullptr) == cudaErrorInvalidValue);
  CHECK(embedding_backward({nullptr, nullptr, nullptr, std::int64_t{1} << 31, 4, 4}, nullptr) ==
        cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
