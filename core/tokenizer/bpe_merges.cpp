// SPDX-License-Identifier: MIT
#include "core/tokenizer/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "core/base/error.h"

namespace bitnet {
namespace {

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

BpeMerges::BpeMerges(const std::array<std::int32_t, 256>& byte_ids, std::size_t merges)
    : byte_ids_(byte_ids), slots_(std::bit_ceil(2 * merges + 2)) {}

// The slot that holds the pair, or the free one where it belongs.
std::size_t BpeMerges::slot_of(std::uint64_t pair) const {
  const std::uint64_t mixed = (pair ^ pair >> 29) * 0x9e3779b97f4a7c15;
  std::size_t slot = (mixed ^ mixed >> 32) & (slots_.size() - 1);
  while (slots_[slot].pair != pair && slots_[slot].pair != kFree)
    slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

const BpeMerges::Slot* BpeMerges::find(std::int32_t left, std::int32_t right) const {
  const Slot& slot = slots_[slot_of(key_of(left, right))];
  return slot.pair == kFree ? nullptr : &slot;
}

bool BpeMerges::add(std::int32_t left, std::int32_t right, std::int32_t merged) {
  BITNET_CHECK(2 * static_cast<std::size_t>(next_rank_) < slots_.size(), "more than {} merges",
               next_rank_);
  Slot& slot = slots_[slot_of(key_of(left, right))];
  if (slot.pair != kFree) return false;
  slot = {key_of(left, right), next_rank_++, merged};
  return true;
}

void BpeMerges::merge(std::string_view word, Scratch& scratch,
                      std::vector<std::int32_t>& ids) const {
  BITNET_CHECK(word.size() < std::size_t{1} << 31, "a word of {} bytes", word.size());
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  const auto size = static_cast<std::int32_t>(word.size());
  for (std::int32_t i = 0; i < size; ++i) {
    const auto byte = static_cast<std::uint8_t>(word[static_cast<std::size_t>(i)]);
    symbols.push_back({byte_ids_[byte], i - 1, i + 1 < size ? i + 1 : -1});
  }
  const auto symbol = [&](std::int32_t place) -> Scratch::Symbol& {
    return symbols[static_cast<std::size_t>(place)];
  };
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return std::tie(a.rank, a.place) > std::tie(b.rank, b.place);
  };
  // Is there a merge of the symbol at `place` and the one after it?
  const auto consider = [&](std::int32_t place) {
    if (place < 0 || symbol(place).next < 0) return false;
    const std::int32_t left = symbol(place).id, right = symbol(symbol(place).next).id;
    const Slot* slot = find(left, right);
    if (slot == nullptr) return false;
    heap.push_back({slot->rank, place, left, right});
    return true;
  };
  const auto push = [&](std::int32_t place) {
    if (consider(place)) std::push_heap(heap.begin(), heap.end(), later);
  };

  for (std::int32_t i = 0; i + 1 < size; ++i) consider(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbol(best.place);
    // One of the two may have been merged with another neighbour meanwhile.
    if (left.id != best.left || left.next < 0 || symbol(left.next).id != best.right) continue;
    Scratch::Symbol& right = symbol(left.next);
    left.id = find(best.left, best.right)->merged;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbol(left.next).previous = best.place;
    push(left.previous);
    push(best.place);
  }
  for (std::int32_t i = size > 0 ? 0 : -1; i >= 0; i = symbol(i).next) ids.push_back(symbol(i).id);
}

}  // namespace bitnet
