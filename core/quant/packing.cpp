// SPDX-License-Identifier: MIT
// The packed 2-bit layout, and what can be counted in it without unpacking.
#include <algorithm>
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
  std::size_t offset = 0;
  for (; offset + 8 <= bytes; offset += 8) visit(offset, std::size_t{8});  // inlined: a plain load
  if (offset < bytes) visit(offset, bytes - offset);
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

std::int64_t find_invalid_code(std::span<const std::uint8_t> packed) {
  // An OR over a block, rather than a branch a word; and the memory is asked for two pages ahead, where
  // the hardware does not look by itself.
  constexpr std::size_t kBlock = 512, kWord = 8, kAhead = 8192;
  for (std::size_t block = 0; block < packed.size(); block += kBlock) {
    const auto bytes = packed.subspan(block, std::min(kBlock, packed.size() - block));
    std::uint64_t invalid = 0;
    if (bytes.size() == kBlock) {
      for (std::size_t i = 0; i < kBlock; i += 64)
        __builtin_prefetch(bytes.data() + i + kAhead, 0, 2);
      for (std::size_t i = 0; i < kBlock; i += kWord) {
        std::uint64_t word;
        std::memcpy(&word, bytes.data() + i, kWord);
        invalid |= word & (word >> 1);
      }
    } else {
      for (const std::uint8_t byte : bytes) invalid |= byte & (byte >> 1);
    }
    if ((invalid & kLowBits) == 0) continue;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if ((bytes[i] & (bytes[i] >> 1) & kLowBits) != 0) return static_cast<std::int64_t>(block + i);
    }
  }
  return -1;
}

// The changes are counted in the bytes of a word, each of which takes at most 4 from a byte: a block
// of 63 words fits. Adding popcounts would cost a call for each word on a plain x86-64.
std::int64_t count_flips(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  BITNET_CHECK(a.size() == b.size(), "cannot compare {} packed bytes with {}", a.size(), b.size());
  constexpr std::size_t kBlock = 63 * sizeof(std::uint64_t);
  constexpr std::uint64_t kPairs = 0x3333333333333333u, kNibbles = 0x0f0f0f0f0f0f0f0fu,
                          kHalfwords = 0x00ff00ff00ff00ffu, kOnes = 0x0001000100010001u;
  std::int64_t flips = 0;
  for (std::size_t block = 0; block < a.size(); block += kBlock) {
    const std::size_t size = std::min(kBlock, a.size() - block);
    const auto x = a.subspan(block, size), y = b.subspan(block, size);
    std::uint64_t byte_counts = 0;
    for_each_word(size, [&](std::size_t offset, std::size_t bytes) {
      const std::uint64_t change = word_at(x, offset, bytes) ^ word_at(y, offset, bytes);
      const std::uint64_t changed = (change | (change >> 1)) & kLowBits;
      const std::uint64_t pairs = (changed & kPairs) + ((changed >> 2) & kPairs);
      byte_counts += (pairs + (pairs >> 4)) & kNibbles;
    });
    const std::uint64_t halves = (byte_counts & kHalfwords) + ((byte_counts >> 8) & kHalfwords);
    flips += static_cast<std::int64_t>((halves * kOnes) >> 48);
  }
  return flips;
}

}  // namespace bitnet
