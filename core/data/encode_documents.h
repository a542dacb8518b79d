// SPDX-License-Identifier: MIT
// The one rule by which a text becomes tokens: byte 0 ends a document, as it does where tokens are
// bytes; each document becomes its tokenizer's document_start() and its tokens, an empty one nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "core/tokenizer/tokenizer.h"

namespace bitnet {

struct DocumentCounts {
  std::int64_t documents = 0;   // that are not empty
  std::int64_t text_bytes = 0;  // in them
};

// Hands the ids to `append`, in order. A document is encoded piece by piece, with the tokens that
// encode() gives for all of it, unless its tokenizer must see the whole. `progress`, which may be
// empty, gets the bytes done.
DocumentCounts encode_documents(std::string_view text, const Tokenizer& tokenizer,
                                const std::function<void(std::span<const std::int32_t>)>& append,
                                const std::function<void(std::size_t)>& progress = {});

}  // namespace bitnet
