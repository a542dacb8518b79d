// SPDX-License-Identifier: MIT
// Stands in for sentencepiece_tokenizer.cpp where the library was not found.
#include "core/base/error.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  throw Error(
      fmt::format("{}: this build cannot read SentencePiece models; install "
                  "libsentencepiece-dev, then configure and build again",
                  file.string()));
}

std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(const SentencePieceData&, bool,
                                                              std::vector<std::int32_t>,
                                                              const std::string&) {
  return nullptr;
}

}  // namespace bitnet
