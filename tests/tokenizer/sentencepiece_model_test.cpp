// SPDX-License-Identifier: MIT
#include "core/tokenizer/sentencepiece_model.h"

#include "core/base/error.h"
#include "core/base/file.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

const char* const kFixture = BITNET_SOURCE_DIR "/tests/fixtures/sentencepiece/tokenizer.model";

std::string bytes_of(std::initializer_list<int> values) {
  std::string bytes;
  for (const int value : values) bytes += static_cast<char>(value);
  return bytes;
}

SentencePieceData tiny() {
  SentencePieceData data;
  data.algorithm = PieceAlgorithm::bpe;
  data.trims_spaces = false;
  data.pieces = {{"u", 0, PieceType::unknown}, {"b", 0, PieceType::control}, {"e", -1.5f}};
  data.bos = 1;
  return data;
}

// serialize_sentencepiece(tiny()), by the protobuf encoding: key = number << 3 | wire type.
const std::string kTiny =
    bytes_of({0x0a, 10, 0x0a, 1, 'u', 0x15, 0, 0, 0, 0, 0x18, 2}) +        // unknown
    bytes_of({0x0a, 10, 0x0a, 1, 'b', 0x15, 0, 0, 0, 0, 0x18, 3}) +        // control
    bytes_of({0x0a, 10, 0x0a, 1, 'e', 0x15, 0, 0, 0xc0, 0xbf, 0x18, 1}) +  // -1.5, normal
    bytes_of({0x12, 25, 0x18, 2, 0xc0, 0x01, 0, 0x98, 0x02, 0}) +          // trainer: BPE
    bytes_of({0xea, 0x02, 1, 'u', 0xf2, 0x02, 1, 'b', 0xfa, 0x02, 6, '<', 'n', 'o', 'n', 'e',
              '>'}) +                                                        // names
    bytes_of({0x1a, 16, 0x0a, 8, 'i', 'd', 'e', 'n', 't', 'i', 't', 'y'}) +  // normalizer
    bytes_of({0x18, 1, 0x20, 0, 0x28, 1});

void check_refused(const std::string& model, const char* reason) {
  CHECK_THROWS_WITH(parse_sentencepiece(model, "x"), Catch::Contains(reason));
  CHECK_THROWS_AS(parse_sentencepiece(model, "x"), FormatError);
}

}  // namespace

TEST_CASE("a SentencePiece model file is read: pieces, algorithm, treatment of spaces",
          "[tokenizer]") {
  const SentencePieceData data = parse_sentencepiece(read_text_file(kFixture), kFixture);
  REQUIRE(data.pieces.size() == 400);
  CHECK(data.pieces[0].text == "<unk>");
  CHECK(data.pieces[0].type == PieceType::unknown);
  CHECK(data.pieces[2].type == PieceType::control);
  CHECK(data.pieces[3].text == "<0x00>");
  CHECK(data.pieces[3].type == PieceType::byte);
  CHECK(data.pieces[259].type == PieceType::normal);
  CHECK(data.pieces[259].score == 0);
  CHECK(data.pieces[260].score == -1);
  CHECK(data.algorithm == PieceAlgorithm::bpe);
  CHECK(data.byte_fallback);
  CHECK(data.adds_space);
  CHECK(data.escapes_spaces);
  CHECK_FALSE(data.trims_spaces);
  CHECK_FALSE(data.space_suffix);
  CHECK_FALSE(data.normalizes);
  CHECK(data.bos == 1);
  CHECK(data.eos == 2);
}

TEST_CASE("a SentencePiece model is written byte for byte as protobuf says, and read again",
          "[tokenizer]") {
  CHECK(serialize_sentencepiece(tiny()) == kTiny);
  const SentencePieceData read = parse_sentencepiece(kTiny, "x");
  CHECK(read.pieces[2].score == -1.5f);
  CHECK(read.bos == 1);
  CHECK_FALSE(read.eos.has_value());
  SentencePieceData named = tiny();
  named.pieces[1].text = "</s>";  // the name of eos where a model says none
  named.pieces.push_back({"<none>", 0, PieceType::control});
  CHECK_FALSE(parse_sentencepiece(serialize_sentencepiece(named), "x").eos.has_value());
  CHECK(serialize_sentencepiece(read) == kTiny);
  const SentencePieceData fixture = parse_sentencepiece(read_text_file(kFixture), kFixture);
  const std::string written = serialize_sentencepiece(fixture);
  CHECK(serialize_sentencepiece(parse_sentencepiece(written, "x")) == written);
}

TEST_CASE("fields of a SentencePiece model that decide nothing are skipped", "[tokenizer]") {
  const std::string other =
      bytes_of({0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4, 0x72, 2, 9, 9});
  CHECK(serialize_sentencepiece(parse_sentencepiece(other + kTiny + other, "x")) == kTiny);
  const std::string tables = bytes_of({0x1a, 4, 0x12, 2, 'a', 'b'});  // of a normalizer
  CHECK(parse_sentencepiece(kTiny + tables, "x").normalizes);
}

TEST_CASE("a damaged SentencePiece model is refused where it is damaged", "[tokenizer]") {
  check_refused(bytes_of({0x0a}), "longer than its message");
  check_refused(bytes_of({0x0a, 5, 'a'}), "longer than its message");
  check_refused(bytes_of({0x0a, 3, 0x15, 0, 0}), "longer than its message");
  check_refused(bytes_of({0x0b}), "of an unknown kind");
  check_refused(bytes_of({0x08, 1}), "no message");
  check_refused(std::string(11, '\xff'), "more than 64 bits");
  check_refused(bytes_of({0x0a, 2, 0x18, 7}), "unknown type");
  check_refused(bytes_of({0x12, 2, 0x18, 0}), "algorithm is unknown");
  // Cut anywhere, it is whole fields or refused.
  for (std::size_t length = 0; length < kTiny.size(); ++length) {
    try {
      const SentencePieceData cut = parse_sentencepiece(kTiny.substr(0, length), "x");
      CHECK(cut.pieces.size() <= 3);
    } catch (const FormatError&) {
    }
  }
}
