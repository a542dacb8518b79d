// SPDX-License-Identifier: MIT
#include "core/gguf/gguf_blocks.h"

#include <array>
#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "core/base/half.h"

namespace bitnet {
namespace {

static_assert(std::endian::native == std::endian::little,
              "floats are stored as they lie in memory");

using Byte = std::uint8_t;

void put_half(Byte* to, std::uint16_t half) { std::memcpy(to, &half, sizeof half); }
std::uint16_t half_at(const Byte* from) {
  std::uint16_t half;
  std::memcpy(&half, from, sizeof half);
  return half;
}

int digit_of(std::int8_t code) { return code + 1; }
std::int8_t code_of(int digit) { return static_cast<std::int8_t>(digit - 1); }

// --- 2-bit types: element e of a block is at byte `byte(e)`, bits `shift(e)` and the next ---

struct TwoBitPlace {
  std::size_t byte;
  int shift;
};

// tq2_0: two halves of 128 elements, 32 bytes each; 32 elements, then the next 32 two bits higher.
TwoBitPlace tq2_0_place(std::size_t e) {
  return {e / 128 * 32 + e % 32, 2 * static_cast<int>(e % 128 / 32)};
}
TwoBitPlace q2_0_place(std::size_t e) { return {e / 4, 2 * static_cast<int>(e % 4)}; }
// i2_s: the first 32 elements are the top bits.
TwoBitPlace i2_s_place(std::size_t e) { return {e % 32, 6 - 2 * static_cast<int>(e / 32)}; }

template <TwoBitPlace (*place)(std::size_t), std::size_t elements>
void encode_two_bits(const std::int8_t* codes, Byte* bytes) {
  std::memset(bytes, 0, elements / 4);
  for (std::size_t e = 0; e < elements; ++e) {
    const auto [byte, shift] = place(e);
    bytes[byte] = static_cast<Byte>(bytes[byte] | digit_of(codes[e]) << shift);
  }
}

// Whether every element is a trit.
template <TwoBitPlace (*place)(std::size_t), std::size_t elements>
bool decode_two_bits(const Byte* bytes, std::int8_t* codes) {
  int largest = 0;
  for (std::size_t e = 0; e < elements; ++e) {
    const auto [byte, shift] = place(e);
    const int digit = bytes[byte] >> shift & 3;
    largest = digit > largest ? digit : largest;
    codes[e] = code_of(digit);
  }
  return largest < 3;
}

// --- tq1_0: base 3, five digits a byte, the first the most significant; stored as a fraction of 256 ---

constexpr std::size_t kFifths = 48;   // bytes of five digits, in the order of kRuns
constexpr std::size_t kQuarters = 4;  // bytes of four digits: the last 16 elements
constexpr struct TritRun {
  std::size_t first_element, first_byte, bytes;  // digit n of byte m is element m + n * bytes
  std::size_t digits;
} kRuns[] = {{0, 0, 32, 5}, {160, 32, 16, 5}, {240, kFifths, kQuarters, 4}};

// q < 243 -> ceil(256 q / 243), from which every digit is the overflow of a multiplication by 3.
Byte stored_fraction(int q) { return static_cast<Byte>((q * 256 + 242) / 243); }

void encode_tq1_0(const std::int8_t* codes, Byte* bytes) {
  for (const TritRun& run : kRuns) {
    for (std::size_t m = 0; m < run.bytes; ++m) {
      int q = 0;
      for (std::size_t n = 0; n < run.digits; ++n)
        q = 3 * q + digit_of(codes[run.first_element + m + n * run.bytes]);
      if (run.digits == 4) q *= 3;
      bytes[run.first_byte + m] = stored_fraction(q);
    }
  }
}

// Any byte decodes to trits.
void decode_tq1_0(const Byte* bytes, std::int8_t* codes) {
  for (const TritRun& run : kRuns) {
    for (std::size_t m = 0; m < run.bytes; ++m) {
      auto fraction = bytes[run.first_byte + m];
      for (std::size_t n = 0; n < run.digits; ++n) {
        codes[run.first_element + m + n * run.bytes] = code_of(fraction * 3 >> 8);
        fraction = static_cast<Byte>(fraction * 3);
      }
    }
  }
}

// --- q1_0: bit j of the block is element j; set for +1 ---

constexpr std::size_t kSigns = 128;

void encode_q1_0(const std::int8_t* codes, Byte* bytes) {
  std::memset(bytes, 0, kSigns / 8);
  for (std::size_t e = 0; e < kSigns; ++e) {
    if (codes[e] > 0) bytes[e / 8] = static_cast<Byte>(bytes[e / 8] | 1 << e % 8);
  }
}
void decode_q1_0(const Byte* bytes, std::int8_t* codes) {
  for (std::size_t e = 0; e < kSigns; ++e)
    codes[e] = (bytes[e / 8] >> e % 8 & 1) != 0 ? std::int8_t{1} : std::int8_t{-1};
}

// --- where codes and scale are in a block ---

struct BlockLayout {
  std::size_t elements, bytes;
  std::size_t codes_at, scale_at;
  void (*encode)(const std::int8_t*, Byte*);
};

BlockLayout layout_of(GgufType type) {
  switch (type) {
    case GgufType::tq1_0:
      return {256, 54, 0, 52, encode_tq1_0};
    case GgufType::tq2_0:
      return {256, 66, 0, 64, encode_two_bits<tq2_0_place, 256>};
    case GgufType::q2_0:
      return {64, 18, 2, 0, encode_two_bits<q2_0_place, 64>};
    case GgufType::q1_0:
      return {128, 18, 2, 0, encode_q1_0};
    case GgufType::i2_s:
      return {128, 32, 0, 0, encode_two_bits<i2_s_place, 128>};
    default:
      throw ContractError(fmt::format("{} holds no codes", to_string(type)));
  }
}

bool decode_block(GgufType type, const Byte* bytes, std::int8_t* codes) {
  switch (type) {
    case GgufType::tq1_0:
      decode_tq1_0(bytes, codes);
      return true;
    case GgufType::tq2_0:
      return decode_two_bits<tq2_0_place, 256>(bytes, codes);
    case GgufType::q2_0:
      return decode_two_bits<q2_0_place, 64>(bytes, codes);
    case GgufType::q1_0:
      decode_q1_0(bytes, codes);
      return true;
    default:
      return decode_two_bits<i2_s_place, 128>(bytes, codes);
  }
}

// Checks that the spans are the same whole number of blocks, and returns it.
std::size_t count_blocks(GgufType type, const BlockLayout& layout, std::size_t codes,
                         std::size_t scales, bool scales_needed, std::size_t bytes) {
  const std::size_t blocks = codes / layout.elements;
  const bool no_scales = type == GgufType::i2_s || (!scales_needed && scales == 0);
  BITNET_CHECK(codes % layout.elements == 0 && bytes == blocks * layout.bytes &&
                   scales == (no_scales ? 0 : blocks),
               "{}: {} codes, {} scales and {} bytes are not the same whole number of blocks",
               to_string(type), codes, scales, bytes);
  return blocks;
}

}  // namespace

void encode_codes(GgufType type, std::span<const std::int8_t> codes, std::span<const float> scales,
                  std::span<std::uint8_t> bytes) {
  const BlockLayout layout = layout_of(type);
  const std::size_t blocks =
      count_blocks(type, layout, codes.size(), scales.size(), true, bytes.size());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const bool fits = codes[i] >= -1 && codes[i] <= 1 && (type != GgufType::q1_0 || codes[i] != 0);
    BITNET_CHECK(fits, "{} cannot hold code {} (element {})", to_string(type), codes[i], i);
  }
  for (std::size_t b = 0; b < blocks; ++b) {
    Byte* block = bytes.data() + b * layout.bytes;
    layout.encode(codes.data() + b * layout.elements, block + layout.codes_at);
    if (type != GgufType::i2_s) put_half(block + layout.scale_at, to_f16(scales[b]));
  }
}

std::int64_t decode_codes(GgufType type, std::span<const std::uint8_t> bytes,
                          std::span<std::int8_t> codes, std::span<float> scales) {
  const BlockLayout layout = layout_of(type);
  const std::size_t blocks =
      count_blocks(type, layout, codes.size(), scales.size(), false, bytes.size());
  std::int64_t first_invalid = -1;
  for (std::size_t b = 0; b < blocks; ++b) {
    const Byte* block = bytes.data() + b * layout.bytes;
    std::int8_t* const to = codes.data() + b * layout.elements;
    if (!decode_block(type, block + layout.codes_at, to) && first_invalid < 0) {
      std::size_t e = 0;
      while (to[e] <= 1) ++e;
      first_invalid = static_cast<std::int64_t>(b * layout.elements + e);
    }
    if (!scales.empty()) scales[b] = from_f16(half_at(block + layout.scale_at));
  }
  return first_invalid;
}

float block_scale(GgufType type, std::span<const std::uint8_t> bytes, std::int64_t block) {
  const BlockLayout layout = layout_of(type);
  const std::size_t at = static_cast<std::size_t>(block) * layout.bytes + layout.scale_at;
  BITNET_CHECK(type != GgufType::i2_s && at + 2 <= bytes.size(), "{} has no block {}",
               to_string(type), block);
  return from_f16(half_at(bytes.data() + at));
}

float i2s_scale(std::span<const std::uint8_t> tensor) {
  BITNET_CHECK(tensor.size() >= kI2sTailBytes, "{} bytes are no i2_s tensor", tensor.size());
  float scale;
  std::memcpy(&scale, tensor.data() + tensor.size() - kI2sTailBytes, sizeof scale);
  return scale;
}

void put_i2s_scale(std::span<std::uint8_t> tensor, float scale) {
  BITNET_CHECK(tensor.size() >= kI2sTailBytes, "{} bytes are no i2_s tensor", tensor.size());
  Byte* const tail = tensor.data() + tensor.size() - kI2sTailBytes;
  std::memset(tail, 0, kI2sTailBytes);
  std::memcpy(tail, &scale, sizeof scale);
}

void decode_gguf_floats(GgufType type, std::span<const std::uint8_t> bytes, std::span<float> to) {
  const auto count = static_cast<std::int64_t>(to.size());
  BITNET_CHECK(elements_of(type) == GgufElements::floats && gguf_type_holds(type, count) &&
                   gguf_tensor_bytes(type, count, 1) == bytes.size(),
               "{} bytes are not {} floats of {}", bytes.size(), count, to_string(type));
  if (to.empty()) return;
  const Byte* const from = bytes.data();
  switch (type) {
    case GgufType::f32:
      std::memcpy(to.data(), from, bytes.size());
      break;
    case GgufType::f16:
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = from_f16(half_at(from + 2 * i));
      break;
    case GgufType::bf16:
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = from_bf16(half_at(from + 2 * i));
      break;
    default:  // q8_0: fp16 d, 32 x int8. d * q has 11 + 7 significant bits: exact.
      for (std::size_t i = 0; i < to.size(); ++i) {
        const Byte* const block = from + i / 32 * 34;
        to[i] = from_f16(half_at(block)) *
                static_cast<float>(static_cast<std::int8_t>(block[2 + i % 32]));
      }
  }
}

void encode_gguf_floats(GgufType type, std::span<const float> values,
                        std::span<std::uint8_t> bytes) {
  const bool known = type == GgufType::f32 || type == GgufType::f16 || type == GgufType::bf16;
  BITNET_CHECK(known, "cannot write floats as {}", to_string(type));
  const std::size_t width = type == GgufType::f32 ? 4 : 2;
  BITNET_CHECK(bytes.size() == width * values.size(), "{} bytes for {} floats of {}", bytes.size(),
               values.size(), to_string(type));
  if (values.empty()) return;
  if (type == GgufType::f32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    put_half(bytes.data() + 2 * i, type == GgufType::f16 ? to_f16(values[i]) : to_bf16(values[i]));
  }
}

}  // namespace bitnet
