// SPDX-License-Identifier: MIT
// The packed 2-bit layout, and what can be counted in it without unpacking.
#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "core/quant/ternary.h"

namespace bitnet {
namespace {

constexpr std::uint64_t kLowBits = 0x5555555555555555u;  // the low bit of each of 32 codes

std::int64_t packed_bytes(std::int64_t rows, std::int64_t columns, std::size_t codes,
                          std::size_t packed) {
  BITNET_CHECK(rows >= 0 && columns >= 0 && rows % 4 == 0,
               "cannot pack {} rows: a packed byte holds one code of each quarter of the rows",
               rows);
  const std::int64_t bytes = rows / 4 * columns;
  BITNET_CHECK(codes == static_cast<std::size_t>(rows * columns),
               "{} codes given for {} rows of {} columns", codes, rows, columns);
  BITNET_CHECK(packed == static_cast<std::size_t>(bytes),
               "{} packed bytes given for {} rows of {} columns, expected {}", packed, rows,
               columns, bytes);
  return bytes;
}

// Calls visit(word, bits) for 8 bytes at a time; the last word may hold fewer bits, the others
// being 0.
template <typename Visit>
void for_each_word(std::size_t bytes, const Visit& visit) {
  for (std::size_t offset = 0; offset < bytes; offset += 8) {
    visit(offset, bytes - offset < 8 ? bytes - offset : 8);
  }
}

std::uint64_t word_at(std::span<const std::uint8_t> packed, std::size_t offset, std::size_t bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, packed.data() + offset, bytes);
  return word;
}

}  // namespace

void pack_codes(std::span<const std::int8_t> codes, std::int64_t rows, std::int64_t columns,
                std::span<std::uint8_t> packed) {
  const std::int64_t quarter = packed_bytes(rows, columns, codes.size(), packed.size());
  for (std::int64_t k = 0; k < quarter; ++k) {
    int byte = 0;
    for (int i = 0; i < 4; ++i) {
      const int code = codes[static_cast<std::size_t>(i * quarter + k)];
      BITNET_CHECK(code >= -1 && code <= 1, "code {} at element {} is not -1, 0 or +1", code,
                   i * quarter + k);
      byte |= (code + 1) << (2 * i);
    }
    packed[static_cast<std::size_t>(k)] = static_cast<std::uint8_t>(byte);
  }
}

bool unpack_codes(std::span<const std::uint8_t> packed, std::int64_t rows, std::int64_t columns,
                  std::span<std::int8_t> codes) {
  const std::int64_t quarter = packed_bytes(rows, columns, codes.size(), packed.size());
  bool valid = true;
  for (std::int64_t k = 0; k < quarter; ++k) {
    const int byte = packed[static_cast<std::size_t>(k)];
    for (int i = 0; i < 4; ++i) {
      const int code = (byte >> (2 * i)) & 3;
      valid = valid && code != 3;
      codes[static_cast<std::size_t>(i * quarter + k)] = static_cast<std::int8_t>(code - 1);
    }
  }
  return valid;
}

CodeCounts count_codes(std::span<const std::uint8_t> packed) {
  CodeCounts counts;
  for_each_word(packed.size(), [&](std::size_t offset, std::size_t bytes) {
    const std::uint64_t word = word_at(packed, offset, bytes);
    const std::uint64_t low = word & kLowBits, high = (word >> 1) & kLowBits;
    const int zero = std::popcount(low & ~high), plus = std::popcount(high & ~low);
    const int invalid = std::popcount(low & high);
    counts.zero += zero;
    counts.plus += plus;
    counts.invalid += invalid;
    counts.minus += static_cast<std::int64_t>(bytes) * 4 - zero - plus - invalid;
  });
  return counts;
}

std::int64_t count_flips(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  BITNET_CHECK(a.size() == b.size(), "cannot compare {} packed bytes with {}", a.size(), b.size());
  std::int64_t flips = 0;
  for_each_word(a.size(), [&](std::size_t offset, std::size_t bytes) {
    const std::uint64_t change = word_at(a, offset, bytes) ^ word_at(b, offset, bytes);
    flips += std::popcount((change | (change >> 1)) & kLowBits);
  });
  return flips;
}

}  // namespace bitnet
