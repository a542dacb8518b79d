// SPDX-License-Identifier: MIT
#include "core/base/error.h"
#include "core/tokenizer/sentencepiece_model.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/support/catch.h"

using namespace bitnet;

TEST_CASE("a build without SentencePiece says what to install", "[tokenizer]") {
  CHECK_THROWS_WITH(load_tokenizer(BITNET_SOURCE_DIR "/tests/fixtures/sentencepiece"),
                    Catch::Contains("libsentencepiece-dev"));
}

TEST_CASE("without SentencePiece its data makes no tokenizer", "[tokenizer]") {
  CHECK(make_sentencepiece_tokenizer(SentencePieceData{}, true, {}, "x.gguf") == nullptr);
}
