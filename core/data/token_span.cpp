// SPDX-License-Identifier: MIT
#include "core/data/token_span.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/data/token_shard.h"

namespace bitnet {

TokenSpan::TokenSpan(const TokenShard& shard)
    : ids_(ShardPart{&shard, 0, static_cast<std::size_t>(shard.tokens())}) {}

std::size_t TokenSpan::size() const {
  return std::visit([](const auto& ids) { return ids.size(); }, ids_);
}

std::int32_t TokenSpan::operator[](std::size_t index) const {
  std::int32_t id = 0;
  copy(index, {&id, 1});
  return id;
}

TokenSpan TokenSpan::subspan(std::size_t first, std::size_t count) const {
  BITNET_CHECK(first <= size() && count <= size() - first, "tokens {} to {} of {}", first,
               first + count, size());
  if (const ShardPart* part = std::get_if<ShardPart>(&ids_)) {
    TokenSpan result = *this;
    result.ids_ = ShardPart{part->shard, part->first + first, count};
    return result;
  }
  if (const auto* bytes = std::get_if<0>(&ids_)) return bytes->subspan(first, count);
  return std::get<1>(ids_).subspan(first, count);
}

void TokenSpan::copy(std::size_t first, std::span<std::int32_t> to) const {
  BITNET_CHECK(first <= size() && to.size() <= size() - first, "tokens {} to {} of {}", first,
               first + to.size(), size());
  if (const ShardPart* part = std::get_if<ShardPart>(&ids_)) {
    part->shard->copy(static_cast<std::int64_t>(part->first + first), to);
  } else if (const auto* bytes = std::get_if<0>(&ids_)) {
    std::copy_n(bytes->begin() + static_cast<std::ptrdiff_t>(first), to.size(), to.begin());
  } else {
    const auto& ids = std::get<1>(ids_);
    std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(first), to.size(), to.begin());
  }
}

}  // namespace bitnet
