// SPDX-License-Identifier: MIT
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/quant/ternary.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

std::vector<std::int8_t> random_codes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> codes(count);
  for (auto& code : codes) code = static_cast<std::int8_t>(static_cast<int>(random() % 3) - 1);
  return codes;
}

TEST_CASE("codes pack into Hugging Face's bytes") {
  std::vector<std::int8_t> codes;
  for (int i = 0; i < 32; ++i) codes.push_back(static_cast<std::int8_t>((7 * i + i / 5) % 3 - 1));
  std::vector<std::uint8_t> packed(8);
  pack_codes(codes, 8, 4, packed);
  CHECK(packed == std::vector<std::uint8_t>{0x50, 0x25, 0x42, 0x94, 0x09, 0x50, 0x25, 0x42});
}

TEST_CASE("unpacking undoes packing, and the counts are those of the codes") {
  for (const std::int64_t columns : {1, 3, 7, 8, 64, 100}) {
    const std::int64_t rows = 12;
    const auto codes = random_codes(static_cast<std::size_t>(rows * columns), 3);
    const auto others = random_codes(codes.size(), 4);
    std::vector<std::uint8_t> packed(codes.size() / 4), other_packed(codes.size() / 4);
    pack_codes(codes, rows, columns, packed);
    pack_codes(others, rows, columns, other_packed);
    std::vector<std::int8_t> back(codes.size());
    CHECK(unpack_codes(packed, rows, columns, back));
    CHECK(back == codes);

    CodeCounts expected;
    std::int64_t flips = 0;
    for (std::size_t k = 0; k < codes.size(); ++k) {
      ++(codes[k] < 0 ? expected.minus : codes[k] > 0 ? expected.plus : expected.zero);
      flips += codes[k] != others[k];
    }
    const CodeCounts counts = count_codes(packed);
    CHECK(counts.minus == expected.minus);
    CHECK(counts.zero == expected.zero);
    CHECK(counts.plus == expected.plus);
    CHECK(counts.invalid == 0);
    CHECK(counts.total() == rows * columns);
    CHECK(count_flips(packed, other_packed) == flips);
    CHECK(count_flips(packed, packed) == 0);
  }
}

TEST_CASE("the unused code 3 is refused by unpack and counted as invalid") {
  std::vector<std::uint8_t> packed(8, 0x55);
  packed[5] = 0xd5;
  std::vector<std::int8_t> codes(32);
  CHECK(!unpack_codes(packed, 8, 4, codes));
  const CodeCounts counts = count_codes(packed);
  CHECK(counts.invalid == 1);
  CHECK(counts.zero == 31);
}

TEST_CASE("the first byte with the value 3 is found at any place of any length") {
  for (const std::size_t size : {0, 1, 7, 511, 512, 513, 5000}) {
    std::vector<std::uint8_t> packed(size, 0xa5);  // codes 1, 1, 2, 2
    CHECK(find_invalid_code(packed) == -1);
    for (const std::size_t place : {std::size_t{0}, size / 2, size - 1}) {
      if (size == 0) continue;
      for (const std::uint8_t byte : {0x03, 0x0c, 0x30, 0xc0, 0xff}) {
        packed.back() = 0xff;
        packed[place] = byte;
        CHECK(find_invalid_code(packed) == static_cast<std::int64_t>(place));
        packed.back() = packed[place] = 0xa5;
      }
    }
  }
}

TEST_CASE("packing refuses wrong sizes and codes") {
  std::vector<std::int8_t> codes(32, 0);
  std::vector<std::uint8_t> packed(8);
  CHECK_THROWS_AS(pack_codes(codes, 6, 4, packed), ContractError);
  CHECK_THROWS_AS(pack_codes(codes, 8, 5, packed), ContractError);
  CHECK_THROWS_AS(pack_codes(codes, 8, 4, std::span(packed).first(7)), ContractError);
  codes[9] = 2;
  CHECK_THROWS_AS(pack_codes(codes, 8, 4, packed), ContractError);
  CHECK_THROWS_AS(count_flips(packed, std::span(packed).first(7)), ContractError);
}

}  // namespace
}  // namespace bitnet
