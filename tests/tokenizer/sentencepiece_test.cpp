// SPDX-License-Identifier: MIT
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/tokenizer/sentencepiece_model.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
using test::TemporaryFolder;

namespace {

using Ids = std::vector<std::int32_t>;
const std::filesystem::path kFolder = BITNET_SOURCE_DIR "/tests/fixtures/sentencepiece";

}  // namespace

TEST_CASE("SentencePiece models give the ids of their library, and the text back", "[tokenizer]") {
  const auto tokenizer = load_tokenizer(kFolder);
  REQUIRE(tokenizer != nullptr);
  CHECK(tokenizer->description() == "SentencePiece, 400 tokens");
  const auto cases = nlohmann::json::parse(read_text_file(kFolder / "cases.json"));
  for (const auto& item : cases) {
    INFO(item["text"].dump(-1, ' ', true));
    const auto text = item["text"].get<std::string>();
    const Ids ids = tokenizer->encode(text);
    CHECK(ids == item["ids"].get<Ids>());
    CHECK(tokenizer->decode(ids) == text);
  }
}

TEST_CASE("SentencePiece's tokens have bytes, names and roles", "[tokenizer]") {
  const auto tokenizer = load_sentencepiece(kFolder / "tokenizer.model");
  CHECK(tokenizer->document_start() == tokenizer->find_token("<s>"));
  CHECK(Ids(tokenizer->end_tokens().begin(), tokenizer->end_tokens().end()) ==
        Ids{*tokenizer->find_token("</s>")});
  CHECK(tokenizer->token_bytes(*tokenizer->find_token("<0x0A>")) == "\n");
  CHECK(tokenizer->token_bytes(*tokenizer->find_token("▁")) == " ");
  CHECK(tokenizer->token_bytes(*tokenizer->find_token("<s>")).empty());
  const std::string text = "a</s>";
  CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  CHECK(tokenizer->encode(text, Tokenizer::SpecialTokens::as_tokens).back() ==
        *tokenizer->find_token("</s>"));
  CHECK_THROWS_AS(tokenizer->token_bytes(400), ContractError);
}

TEST_CASE("a SentencePiece model with tokens added later is saved and loaded", "[tokenizer]") {
  const TemporaryFolder folder, saved;
  write_file(folder / "tokenizer.model", read_text_file(kFolder / "tokenizer.model"));
  write_file(folder / "added_tokens.json", R"({"<pad>": 401, "<s>": 1})");
  write_file(folder / "generation_config.json", R"({"eos_token_id": [2, 401]})");
  const auto tokenizer = load_tokenizer(folder.path());
  CHECK(tokenizer->vocab_size() == 402);
  CHECK(tokenizer->find_token("<pad>") == 401);
  CHECK(tokenizer->token_bytes(401).empty());
  CHECK(Ids(tokenizer->end_tokens().begin(), tokenizer->end_tokens().end()) == Ids{2, 401});
  tokenizer->save(saved.path());
  CHECK(load_tokenizer(saved.path())->fingerprint() == tokenizer->fingerprint());
  CHECK(load_tokenizer(kFolder)->fingerprint() != tokenizer->fingerprint());
  write_file(folder / "added_tokens.json", R"({"<pad>": 5})");
  CHECK_THROWS_AS(load_tokenizer(folder.path()), FormatError);
}

TEST_CASE("SentencePiece data of another format gives the model's ids, and is saved",
          "[tokenizer]") {
  const TemporaryFolder saved;
  const auto original = load_tokenizer(kFolder);
  const auto data = original->sentencepiece_data();
  REQUIRE(data != nullptr);
  const auto tokenizer = make_sentencepiece_tokenizer(*data, true, {2, 5}, "x.gguf");
  const auto cases = nlohmann::json::parse(read_text_file(kFolder / "cases.json"));
  for (const auto& item : cases)
    CHECK(tokenizer->encode(item["text"].get<std::string>()) == item["ids"].get<Ids>());
  CHECK(tokenizer->document_start() == 1);
  CHECK(Ids(tokenizer->end_tokens().begin(), tokenizer->end_tokens().end()) == Ids{2, 5});
  tokenizer->save(saved.path());
  CHECK(load_tokenizer(saved.path())->fingerprint() == tokenizer->fingerprint());

  const auto denied = make_sentencepiece_tokenizer(*data, false, {}, "x.gguf");
  CHECK(denied->document_start() == 2);
  denied->save(saved.path());
  CHECK(load_tokenizer(saved.path())->document_start() == 2);

  SentencePieceData twice = *data;
  twice.pieces[300].text = twice.pieces[301].text;
  CHECK_THROWS_AS(make_sentencepiece_tokenizer(twice, true, {}, "x.gguf"), FormatError);
}

TEST_CASE("tokens that a SentencePiece model got later are control pieces of its data",
          "[tokenizer]") {
  const TemporaryFolder folder;
  write_file(folder / "tokenizer.model", read_text_file(kFolder / "tokenizer.model"));
  write_file(folder / "added_tokens.json", R"({"<pad>": 401})");
  const auto data = load_tokenizer(folder.path())->sentencepiece_data();
  REQUIRE(data->pieces.size() == 402);
  CHECK(data->pieces[400].type == PieceType::unused);
  CHECK(data->pieces[401].text == "<pad>");
  CHECK(data->pieces[401].type == PieceType::control);
}

TEST_CASE("a tokenizer.model is read where its JSON form is not", "[tokenizer]") {
  const TemporaryFolder folder;
  write_file(folder / "tokenizer.model", read_text_file(kFolder / "tokenizer.model"));
  write_file(folder / "tokenizer.json", R"({"model": {"type": "BPE", "byte_fallback": true}})");
  CHECK(load_tokenizer(folder.path())->vocab_size() == 400);
}

TEST_CASE("a damaged SentencePiece model is refused", "[tokenizer]") {
  const TemporaryFolder folder;
  const std::string model = read_text_file(kFolder / "tokenizer.model");
  write_file(folder / "tokenizer.model", model.substr(0, model.size() / 2) + "\xff\xff");
  CHECK_THROWS_AS(load_tokenizer(folder.path()), FormatError);
  write_file(folder / "tokenizer.model", "");
  CHECK_THROWS_AS(load_tokenizer(folder.path()), FormatError);
}
