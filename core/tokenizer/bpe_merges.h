// SPDX-License-Identifier: MIT
// Byte pair encoding of one word: of all neighbours that may be merged the pair with the lowest
// rank is, the leftmost of equals, until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace bitnet {

class BpeMerges {
 public:
  // Working memory of merge(), kept from word to word.
  class Scratch {
    friend class BpeMerges;
    struct Symbol {
      std::int32_t id, previous, next;  // -1: none; id -1: merged into its left neighbour
    };
    struct Candidate {
      std::int32_t rank, place, left, right;  // symbols[place] and its next had these ids
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  BpeMerges(const std::array<std::int32_t, 256>& byte_ids, std::size_t merges);

  // Ranks count up from 0. Returns false where the pair is there already.
  bool add(std::int32_t left, std::int32_t right, std::int32_t merged);

  // Appends the tokens of a word of less than 2^31 bytes. n bytes take n log n steps.
  void merge(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

 private:
  // Open addressing, at most half full: the lookup is what encoding spends its time on.
  struct Slot {
    std::uint64_t pair = kFree;
    std::int32_t rank = 0, merged = 0;
  };
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};  // ids are not negative

  std::size_t slot_of(std::uint64_t pair) const;
  const Slot* find(std::int32_t left, std::int32_t right) const;

  std::array<std::int32_t, 256> byte_ids_;
  std::vector<Slot> slots_;
  std::int32_t next_rank_ = 0;
};

}  // namespace bitnet
