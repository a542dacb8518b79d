// SPDX-License-Identifier: MIT
#include "core/data/encode_documents.h"

#include <algorithm>
#include <vector>

namespace bitnet {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;  // of a document, encoded at once

}  // namespace

DocumentCounts encode_documents(std::string_view text, const Tokenizer& tokenizer,
                                const std::function<void(std::span<const std::int32_t>)>& append,
                                const std::function<void(std::size_t)>& progress) {
  DocumentCounts counts;
  std::vector<std::int32_t> ids;
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\0', begin), text.size());
    if (begin == end) continue;
    ++counts.documents;
    counts.text_bytes += static_cast<std::int64_t>(end - begin);
    if (const auto start = tokenizer.document_start()) append(std::span(&*start, 1));
    // A piece grows where nothing in it is certain: a word is never cut.
    for (std::size_t piece = kPieceBytes; end - begin > piece;) {
      ids.clear();
      const std::size_t certain = tokenizer.encode_prefix(text.substr(begin, piece), ids);
      append(ids);
      begin += certain;
      if (progress) progress(begin);
      piece = certain > 0 ? kPieceBytes : 2 * piece;
    }
    append(tokenizer.encode(text.substr(begin, end - begin)));
    if (progress) progress(end);
  }
  return counts;
}

}  // namespace bitnet
