// SPDX-License-Identifier: MIT
// Dropout's random words against Philox written a second time, and against its published answers.
#include "cuda/dropout.h"

#include <array>
#include <cstdint>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using Words = std::array<std::uint32_t, 4>;

Words philox(Words c, std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9U, k1 += 0xBB67AE85U) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
  }
  return c;
}

std::vector<float> run(Dropout op, const std::vector<float>& x, bool in_place) {
  const test::Stream stream;
  DeviceArray<float> from(x), to(x.size());
  op.x = from.data();
  op.y = in_place ? from.data() : to.data();
  op.count = static_cast<std::int64_t>(x.size());
  REQUIRE(cuda_error(dropout(op, stream)) == "");
  return in_place ? from.to_host() : to.to_host();
}

TEST_CASE("The elements that dropout keeps are those of Philox's words, in place too") {
  const std::size_t count = GENERATE(1u, 4u, 1023u, 1030u);     // 1024 of a block
  const std::uint64_t first_block = GENERATE(0u, 0xfffffffeu);  // where the low word ends
  CAPTURE(count, first_block);
  const Dropout op{nullptr,     nullptr,     0,     0x123456789abcdef0U, 17, 3,
                   first_block, 0x5fffffffU, 0.625f};
  std::vector<float> x(count), expected(count);
  for (std::size_t i = 0; i < count; ++i) {
    x[i] = static_cast<float>(i) + 0.3f;
    const std::uint64_t block = first_block + i / 4;
    const Words words = philox({static_cast<std::uint32_t>(block),
                                static_cast<std::uint32_t>(block >> 32), op.step, op.purpose},
                               0x9abcdef0U, 0x12345678U);
    expected[i] = words[i % 4] > op.last_dropped ? x[i] / op.keep : 0.0f;
  }
  test::in_each_execution([&] {
    CHECK(run(op, x, false) == expected);
    CHECK(run(op, x, true) == expected);
  });
}

// philox4x32-10 of Random123's kat_vectors: counter and key of zeros.
TEST_CASE("The words of dropout are the published ones") {
  const Words published = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (std::size_t i = 0; i < 4; ++i) {
    Dropout op{nullptr, nullptr, 0, 0, 0, 0, 0, published[i], 1.0f};
    CHECK(run(op, {1, 1, 1, 1}, false)[i] == 0.0f);
    --op.last_dropped;
    CHECK(run(op, {1, 1, 1, 1}, false)[i] == 1.0f);
  }
}

}  // namespace
}  // namespace bitnet::cuda
