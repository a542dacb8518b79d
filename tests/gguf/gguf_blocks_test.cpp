// SPDX-License-Identifier: MIT
// Block layouts against published bytes, and every type against its reverse.
#include "core/gguf/gguf_blocks.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/half.h"
#include "core/quant/ternary.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

using namespace bitnet;

namespace {

// Bytes of the reference: made by other programs for the trits and signs below, scale 0.5.
struct Golden {
  GgufType type;
  std::size_t elements;
  const char* hex;
};
const Golden kGolden[] = {
    {GgufType::tq2_0, 256,
     "588116600558811660055881166005588116600558811660055881166005588160055881166005588116600558811"
     "660"
     "055881166005588116600558811660050038"},
    {GgufType::tq1_0, 256,
     "465dd11874465dd11874465dd11874465dd11874465dd11874465dd11874465d3192b622663192b622663192b6226"
     "63"
     "1235fcb430038"},
    {GgufType::q2_0, 64, "003824914412492491441249249144124924"},
    {GgufType::q1_0, 128, "003892244992244992244992244992244992"},
    {GgufType::i2_s, 256,
     "2542940950254294095025429409502542940950254294095025429409502542"
     "0950254294095025429409502542940950254294095025429409502542940950"},
};

std::vector<std::uint8_t> bytes_of_hex(const std::string& hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::vector<std::int8_t> golden_codes(GgufType type, std::size_t count) {
  std::vector<std::int8_t> codes(count);
  for (std::size_t i = 0; i < count; ++i) {
    const bool plus = (5 * i + i / 3) % 2 == 1;
    codes[i] = type == GgufType::q1_0 ? static_cast<std::int8_t>(plus ? 1 : -1)
                                      : static_cast<std::int8_t>((7 * i + i / 5) % 3) - 1;
  }
  return codes;
}

std::size_t block_of(GgufType type) {
  return static_cast<std::size_t>(find_gguf_type(type)->block);
}
std::size_t block_bytes_of(GgufType type) {
  return static_cast<std::size_t>(find_gguf_type(type)->block_bytes);
}
std::size_t scales_of(GgufType type, std::size_t codes) {
  return type == GgufType::i2_s ? 0 : codes / block_of(type);
}

std::vector<std::int8_t> random_codes(GgufType type, std::size_t count, std::uint32_t seed) {
  std::vector<std::int8_t> codes;
  for (const double x : test::random_numbers(seed, static_cast<std::int64_t>(count), 1.0)) {
    const int trit = x > 0.4 ? 1 : x < -0.4 ? -1 : 0;
    codes.push_back(static_cast<std::int8_t>(trit == 0 && type == GgufType::q1_0 ? 1 : trit));
  }
  return codes;
}

const GgufType kCodeTypes[] = {GgufType::tq1_0, GgufType::tq2_0, GgufType::q2_0, GgufType::q1_0,
                               GgufType::i2_s};

}  // namespace

TEST_CASE("GGUF blocks are the reference's bytes, in both directions") {
  for (const Golden& golden : kGolden) {
    INFO(to_string(golden.type));
    const auto expected = bytes_of_hex(golden.hex);
    const auto codes = golden_codes(golden.type, golden.elements);
    const std::vector<float> scales(scales_of(golden.type, codes.size()), 0.5f);
    std::vector<std::uint8_t> bytes(expected.size());
    encode_codes(golden.type, codes, scales, bytes);
    CHECK(bytes == expected);

    std::vector<std::int8_t> decoded(codes.size());
    std::vector<float> decoded_scales(scales.size());
    CHECK(decode_codes(golden.type, expected, decoded, decoded_scales) == -1);
    CHECK(decoded == codes);
    CHECK(decoded_scales == scales);
  }
}

TEST_CASE("GGUF's i2_s scale follows the codes and is padded with zeros") {
  std::vector<std::uint8_t> tensor(gguf_tensor_bytes(GgufType::i2_s, 128, 2), 0xee);
  REQUIRE(tensor.size() == 96);
  put_i2s_scale(tensor, 0.5f);
  const auto tail =
      bytes_of_hex("0000003f00000000000000000000000000000000000000000000000000000000");
  CHECK(std::vector<std::uint8_t>(tensor.begin() + 64, tensor.end()) == tail);
  CHECK(i2s_scale(tensor) == 0.5f);
}

TEST_CASE("GGUF blocks give back random codes and scales") {
  for (const GgufType type : kCodeTypes) {
    INFO(to_string(type));
    const std::size_t blocks = 31, count = blocks * block_of(type);
    const auto codes = random_codes(type, count, 5);
    std::vector<float> scales(scales_of(type, count));
    for (std::size_t b = 0; b < scales.size(); ++b)
      scales[b] = from_f16(static_cast<std::uint16_t>(997 * b + 1));
    std::vector<std::uint8_t> bytes(blocks * block_bytes_of(type));
    encode_codes(type, codes, scales, bytes);
    std::vector<std::int8_t> decoded(count);
    std::vector<float> decoded_scales(scales.size());
    CHECK(decode_codes(type, bytes, decoded, decoded_scales) == -1);
    CHECK(decoded == codes);
    CHECK(decoded_scales == scales);
    for (std::size_t b = 0; b < scales.size(); ++b)
      CHECK(block_scale(type, bytes, static_cast<std::int64_t>(b)) == scales[b]);
  }
}

TEST_CASE("every group of trits that shares a byte survives a GGUF block") {
  // 3^5 is the most that one byte holds: element e of a block is digit e / 32 (tq1_0's first part)
  // or any other rule, so all combinations of the elements of one byte are among these.
  for (const GgufType type : {GgufType::tq1_0, GgufType::tq2_0, GgufType::q2_0, GgufType::i2_s}) {
    INFO(to_string(type));
    const std::size_t count = block_of(type);
    for (const std::size_t stride : {1u, 4u, 16u, 32u}) {
      for (int combination = 0; combination < 243; ++combination) {
        std::vector<std::int8_t> codes(count), decoded(count);
        for (std::size_t e = 0; e < count; ++e) {
          const auto digit = (e / stride) % 5;
          int rest = combination;
          for (std::size_t d = 0; d < digit; ++d) rest /= 3;
          codes[e] = static_cast<std::int8_t>(rest % 3 - 1);
        }
        std::vector<float> scales(scales_of(type, count), 1.0f);
        std::vector<std::uint8_t> bytes(block_bytes_of(type));
        encode_codes(type, codes, scales, bytes);
        decode_codes(type, bytes, decoded, scales);
        REQUIRE(decoded == codes);
      }
    }
  }
}

TEST_CASE("a 2-bit value of 3 in a GGUF block is found") {
  for (const GgufType type : {GgufType::tq2_0, GgufType::q2_0, GgufType::i2_s}) {
    INFO(to_string(type));
    const std::size_t block = block_of(type), count = 2 * block;
    for (std::size_t e = 0; e < count; ++e) {
      // The place of an element is where its bits change when it does.
      std::vector<std::int8_t> minus(count, -1), one = minus;
      one[e] = 1;
      std::vector<float> scales(scales_of(type, count), 1.0f);
      std::vector<std::uint8_t> bytes(2 * block_bytes_of(type)), other = bytes;
      encode_codes(type, minus, scales, bytes);
      encode_codes(type, one, scales, other);
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        const int changed = bytes[i] ^ other[i];  // 2 at the element's place
        bytes[i] = static_cast<std::uint8_t>(bytes[i] | changed | changed >> 1);
      }
      std::vector<std::int8_t> codes(count);
      REQUIRE(decode_codes(type, bytes, codes, {}) == static_cast<std::int64_t>(e));
    }
  }
}

TEST_CASE("GGUF blocks refuse codes and sizes that they cannot hold") {
  std::vector<std::int8_t> codes(128, 1);
  std::vector<std::uint8_t> bytes(18);
  const std::vector<float> scale = {1.0f};
  encode_codes(GgufType::q1_0, codes, scale, bytes);
  codes[77] = 0;
  CHECK_THROWS_WITH(encode_codes(GgufType::q1_0, codes, scale, bytes),
                    Catch::Contains("q1_0 cannot hold code 0 (element 77)"));
  codes[77] = 2;
  std::vector<std::uint8_t> two(36);
  CHECK_THROWS_AS(encode_codes(GgufType::q2_0, codes, std::vector<float>(2, 1.0f), two),
                  ContractError);
  codes.assign(128, 0);
  CHECK_THROWS_AS(encode_codes(GgufType::q2_0, codes, scale, two), ContractError);
  CHECK_THROWS_AS(decode_codes(GgufType::tq2_0, two, codes, {}), ContractError);
  CHECK_THROWS_AS(decode_codes(GgufType::f32, two, codes, {}), ContractError);
}

TEST_CASE("GGUF's float types decode exactly and encode to the nearest") {
  const std::vector<float> values = {0.0f, -1.5f, 1.0f / 3.0f, 65504.0f, -0x1p-24f, 3.0e-8f};
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16}) {
    INFO(to_string(type));
    std::vector<std::uint8_t> bytes(gguf_tensor_bytes(type, std::ssize(values), 1));
    encode_gguf_floats(type, values, bytes);
    std::vector<float> decoded(values.size());
    decode_gguf_floats(type, bytes, decoded);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float expected = type == GgufType::f32   ? values[i]
                             : type == GgufType::f16 ? from_f16(to_f16(values[i]))
                                                     : from_bf16(to_bf16(values[i]));
      CHECK(decoded[i] == expected);
    }
  }
  std::vector<std::uint8_t> block(34);
  block[1] = 0x38;  // d = 0.5
  for (int i = 0; i < 32; ++i)
    block[static_cast<std::size_t>(2 + i)] = static_cast<std::uint8_t>(i - 16);
  std::vector<float> decoded(32);
  decode_gguf_floats(GgufType::q8_0, block, decoded);
  for (int i = 0; i < 32; ++i)
    CHECK(decoded[static_cast<std::size_t>(i)] == 0.5f * static_cast<float>(i - 16));
}

TEST_CASE("GGUF types know their sizes and name those that hold a row") {
  CHECK(gguf_tensor_bytes(GgufType::tq1_0, 512, 3) == 3 * 2 * 54);
  CHECK(gguf_tensor_bytes(GgufType::q2_0, 128, 2) == 2 * 2 * 18);
  CHECK(gguf_tensor_bytes(GgufType::i2_s, 256, 4) == 256 + 32);
  CHECK_THROWS_AS(gguf_tensor_bytes(GgufType::tq2_0, 320, 4), ContractError);
  CHECK(gguf_types_that_hold(320) == "q2_0 (blocks of 64)");
  CHECK(gguf_types_that_hold(384) == "q2_0 (blocks of 64), i2_s (blocks of 128)");
  CHECK(gguf_types_that_hold(60).empty());
  CHECK(parse_gguf_type("tq1_0") == GgufType::tq1_0);
  CHECK_FALSE(parse_gguf_type("q2_0_0").has_value());
  CHECK(to_string(GgufType{99}) == "type 99");
  CHECK(elements_of(GgufType{12}) == GgufElements::foreign);
}
