// SPDX-License-Identifier: MIT
// SentencePiece vocabularies in GGUF files (tokenizer.ggml.model = llama), both ways.
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/convert/native_writer.h"
#include "core/tokenizer/sentencepiece_model.h"
#include "tests/convert/gguf_models.h"
#include "tests/support/catch.h"
#include "tests/support/contains.h"

using namespace bitnet;
using namespace bitnet::test;

namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

const fs::path kFixture = BITNET_SOURCE_DIR "/tests/fixtures/sentencepiece";
constexpr std::int64_t kPieces = 400, kVocabulary = 404;

// A model with the fixture's vocabulary and four token ids of padding, in our form and in GGUF.
class SentencePieceModel {
 public:
  SentencePieceModel() {
    ModelConfig config = gguf_config();
    config.vocab_size = kVocabulary;
    saved_model(*backend_, config, folder_ / "model");
    write_file(folder_ / "model" / "tokenizer.model", read_text_file(kFixture / "tokenizer.model"));
    source_ = open_native(folder_ / "model");
    export_gguf(*source_, file(), {});
  }
  fs::path file() const { return folder_ / "x.gguf"; }
  fs::path folder() const { return folder_.path(); }
  const SharedReader& source() const { return source_; }

  std::shared_ptr<const Tokenizer> changed(const std::function<void(GgufParts&)>& change) const {
    GgufParts parts(file());
    change(parts);
    parts.write(folder_ / "y.gguf");
    return open_gguf(folder_ / "y.gguf")->tokenizer();
  }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  SharedReader source_;
};

void check_ids(const Tokenizer& tokenizer) {
  for (const auto& item : nlohmann::json::parse(read_text_file(kFixture / "cases.json"))) {
    INFO(item["text"].dump(-1, ' ', true));
    CHECK(tokenizer.encode(item["text"].get<std::string>()) == item["ids"].get<Ids>());
  }
}

std::string i32s(std::string_view key, const Ids& values) {
  std::string bytes;
  for (const std::int32_t value : values) bytes += raw(value);
  return array_of(key, GgufValueType::i32, values.size(), bytes);
}

constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";

Ids types_of(const fs::path& path) {
  const auto types = GgufFile(path).integers(kTypes);
  return {types.begin(), types.end()};
}

}  // namespace

TEST_CASE("a SentencePiece vocabulary goes into GGUF with its scores and types, and back") {
  const SentencePieceModel model;
  const GgufFile file(model.file());
  CHECK(file.text("tokenizer.ggml.model") == "llama");
  CHECK(file.text("tokenizer.ggml.pre") == "default");
  CHECK(file.integer("tokenizer.ggml.unknown_token_id", 0, kVocabulary) == 0);
  CHECK(file.integer("tokenizer.ggml.bos_token_id", 0, kVocabulary) == 1);
  CHECK(file.integer("tokenizer.ggml.eos_token_id", 0, kVocabulary) == 2);
  CHECK(file.boolean("tokenizer.ggml.add_bos_token"));
  CHECK_FALSE(file.boolean("tokenizer.ggml.add_eos_token"));
  CHECK(file.boolean("tokenizer.ggml.add_space_prefix"));
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  const auto scores = file.numbers(kScores);
  const Ids types = types_of(model.file());
  const auto data = model.source()->tokenizer()->sentencepiece_data();
  REQUIRE(tokens.size() == kVocabulary);
  for (std::size_t id = 0; id < kPieces; ++id) {
    CHECK(tokens[id] == data->pieces[id].text);
    CHECK(scores[id] == data->pieces[id].score);
    CHECK(types[id] == static_cast<int>(data->pieces[id].type));
  }
  CHECK(tokens[kVocabulary - 1] == "[PAD403]");
  CHECK(types.back() == static_cast<int>(PieceType::unused));

  const SharedReader read = open_gguf(model.file());
  CHECK(read->warnings().empty());
  check_ids(*read->tokenizer());
  CHECK(read->tokenizer()->document_start() == 1);
  write_native(*read, model.folder() / "imported", {});
  const auto imported = load_tokenizer(model.folder() / "imported");
  check_ids(*imported);
  CHECK(imported->document_start() == 1);
  contains(read_text_file(model.folder() / "imported" / "tokenizer_config.json"),
           "\"add_bos_token\": true");
}

TEST_CASE("a SentencePiece vocabulary in GGUF has llama.cpp's defaults where keys are missing") {
  const SentencePieceModel model;
  const auto bare = model.changed([](GgufParts& parts) {
    for (const char* key : {"unknown_token_id", "bos_token_id", "eos_token_id", "add_bos_token",
                            "add_eos_token", "add_space_prefix", "pre", "token_type"})
      parts.erase(std::string("tokenizer.ggml.") + key);
  });
  CHECK(bare->document_start() == 1);
  CHECK(Ids(bare->end_tokens().begin(), bare->end_tokens().end()) == Ids{2});
  CHECK(bare->encode("is a").front() == open_gguf(model.file())->tokenizer()->encode("is").front());
  CHECK(bare->token_bytes(0).empty());

  const auto bool_of = [](const char* key, bool value) {
    return key_of(key, GgufValueType::boolean, raw(std::uint8_t{value}));
  };
  constexpr const char* kAddBos = "tokenizer.ggml.add_bos_token";
  constexpr const char* kAddSpace = "tokenizer.ggml.add_space_prefix";
  const auto no_bos =
      model.changed([&](GgufParts& parts) { parts.set(kAddBos, bool_of(kAddBos, false)); });
  CHECK(no_bos->document_start() == 2);
  const auto no_space =
      model.changed([&](GgufParts& parts) { parts.set(kAddSpace, bool_of(kAddSpace, false)); });
  CHECK(no_space->token_name(no_space->encode("a").front()) == "a");
  CHECK(no_space->decode(no_space->encode(" a")) == " a");
}

TEST_CASE("merging in a SentencePiece vocabulary of GGUF follows the scores") {
  const SentencePieceModel model;
  const auto reversed = model.changed([&](GgufParts& parts) {
    std::string bytes;
    for (const float score : GgufFile(model.file()).numbers(kScores)) bytes += raw(-score);
    parts.set(kScores, array_of(kScores, GgufValueType::f32, kVocabulary, bytes));
  });
  int different = 0;
  for (const auto& item : nlohmann::json::parse(read_text_file(kFixture / "cases.json")))
    different += reversed->encode(item["text"].get<std::string>()) != item["ids"].get<Ids>();
  CHECK(different > 0);
}

TEST_CASE("damaged SentencePiece vocabularies in GGUF are refused") {
  const SentencePieceModel model;
  const auto refused = [&](const std::function<void(GgufParts&)>& change, const char* reason) {
    CHECK_THROWS_AS(model.changed(change), FormatError);
    CHECK_THROWS_WITH(model.changed(change), Catch::Contains(reason));
  };
  const auto with_type = [&](std::size_t id, std::int32_t type) {
    return [&model, id, type](GgufParts& parts) {
      Ids types = types_of(model.file());
      types[id] = type;
      parts.set(kTypes, i32s(kTypes, types));
    };
  };
  refused(with_type(300, 2), "already defined");  // a second unknown one
  refused(with_type(300, 7), "has 7 for token 300, expected 0 to 6");
  refused(with_type(300, 6), "SentencePiece");  // a byte that is none
  refused([](GgufParts& parts) { parts.set(kScores, i32s(kScores, Ids(kVocabulary))); },
          "expected an array of finite numbers (f32)");
  refused(
      [](GgufParts& parts) {
        parts.set(kScores, array_of(kScores, GgufValueType::f32, 2, raw(0.0f) + raw(NAN)));
      },
      "has nan at index 1");
  refused(
      [](GgufParts& parts) {
        parts.set(kScores, array_of(kScores, GgufValueType::f32, 1, raw(0.0f)));
      },
      "has 1 values, expected 404");
}

TEST_CASE(
    "user-defined tokens of a GGUF file are found in texts, with a note on llama.cpp's spaces") {
  const SentencePieceModel model;
  GgufParts parts(model.file());
  Ids types = types_of(model.file());
  types[kVocabulary - 1] = static_cast<int>(PieceType::user_defined);  // [PAD403]
  parts.set(kTypes, i32s(kTypes, types));
  parts.write(model.folder() / "y.gguf");
  const SharedReader read = open_gguf(model.folder() / "y.gguf");
  REQUIRE(read->warnings().size() == 1);
  contains(read->warnings()[0], "user-defined");
  CHECK(read->tokenizer()->encode("a[PAD403]").back() == kVocabulary - 1);
}

TEST_CASE("SentencePiece models that GGUF's readers would encode otherwise are not exported") {
  const SentencePieceModel model;
  const auto refused = [&](const std::function<void(SentencePieceData&)>& change,
                           const char* reason) {
    auto data = parse_sentencepiece(read_text_file(kFixture / "tokenizer.model"), "x");
    change(data);
    write_file(model.folder() / "model" / "tokenizer.model", serialize_sentencepiece(data));
    CHECK_THROWS_AS(export_gguf(*model.source(), model.folder() / "z.gguf", {}), UsageError);
    CHECK_THROWS_WITH(export_gguf(*model.source(), model.folder() / "z.gguf", {}),
                      Catch::Contains(reason));
  };
  refused([](auto& data) { data.algorithm = PieceAlgorithm::unigram; }, "another algorithm");
  refused([](auto& data) { data.trims_spaces = true; }, "removes spaces");
  refused(
      [](auto& data) {
        data.byte_fallback = false;
        for (auto& piece : data.pieces)
          if (piece.type == PieceType::byte) piece.type = PieceType::normal;
      },
      "no tokens for bytes");
}
