// SPDX-License-Identifier: MIT
#include "core/data/text_data.h"

#include "core/base/file.h"
#include "core/data/batch_loader.h"
#include "core/data/token_lengths.h"
#include "tests/support/catch.h"
#include "tests/support/pair_tokenizer.h"
#include "tests/support/temporary_folder.h"

namespace bitnet {
namespace {

std::vector<std::int32_t> ids_of(TokenSpan tokens) {
  std::vector<std::int32_t> ids(tokens.size());
  tokens.copy(0, ids);
  return ids;
}

const std::string kText = "the cat sat on a mat. a dog ran!";  // 32 bytes

DataConfig config_of(const std::filesystem::path& path) {
  DataConfig config;
  config.path = path.string();
  config.split = {0.5, 0.25, 0.25};
  return config;
}

// The document_start() and the tokens of a text without byte 0.
std::vector<std::int32_t> document(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids = tokenizer.encode(text);
  if (const auto start = tokenizer.document_start()) ids.insert(ids.begin(), *start);
  return ids;
}

void write_shard(const std::filesystem::path& path, const Tokenizer& tokenizer,
                 std::string_view text) {
  TokenShardWriter writer(path, tokenizer);
  writer.append_text(text);
  writer.commit();
}

void check_span(const TokenSpan& span, const std::vector<std::int32_t>& ids) {
  REQUIRE(ids.size() > 30);
  CHECK(ids_of(span) == ids);
  CHECK(span[ids.size() - 1] == ids.back());
  const TokenSpan part = span.subspan(7).subspan(3, 20);
  CHECK(ids_of(part) == std::vector<std::int32_t>(ids.begin() + 10, ids.begin() + 30));
  CHECK(part.first(0).empty());
  CHECK_THROWS_AS(part.subspan(15, 6), ContractError);
  std::vector<std::int32_t> seven(7);
  CHECK_THROWS_AS(part.copy(14, seven), ContractError);

  for (const char* order : {"random", "sequential"}) {
    const BatchPlan plan{9, 2, 2, order, 3};
    const BatchLoader loader(span, plan), reference(ids, plan);
    for (std::int64_t i = 0; i < 40; ++i) {  // more than a pass
      std::vector<std::int32_t> tokens(18), targets(18), expected(18), expected_targets(18);
      loader.batch(i / 2, i % 2, tokens, targets);
      reference.batch(i / 2, i % 2, expected, expected_targets);
      CHECK(tokens == expected);
      CHECK(targets == expected_targets);
    }
  }
}

TEST_CASE("token spans read the same from bytes, ids and shards") {
  const test::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 5; ++i) text += kText;
  const test::PairTokenizer tokenizer;
  const std::vector<std::int32_t> ids = document(tokenizer, text);
  check_span(ids, ids);
  write_shard(folder / "shard", tokenizer, text);
  const TokenShard shard(folder / "shard");
  check_span(shard, ids);
  const std::vector<std::uint8_t> bytes(text.begin(), text.end());
  check_span(bytes, {text.begin(), text.end()});
  CHECK(TokenSpan().empty());
}

TEST_CASE("token lengths count the bytes of a text, and special tokens have none") {
  const test::PairTokenizer tokenizer;
  const TokenLengths lengths(tokenizer);
  std::vector<std::int32_t> ids = tokenizer.encode(kText, {});
  CHECK(ids.size() < kText.size());
  CHECK(lengths.bytes_of(ids) == 32);
  ids.insert(ids.begin() + 3, test::PairTokenizer::kStart);
  CHECK(lengths.bytes_of(ids) == 32);
  for (std::int64_t limit = 2; limit <= 40; ++limit) {
    const TokenLengths::Part part = lengths.leading(ids, limit);
    CHECK(part.bytes == lengths.bytes_of(part.tokens));
    CHECK(part.bytes <= limit);
    const bool whole = part.tokens.size() == ids.size();
    CHECK((whole || part.bytes + 2 > limit));
  }
  CHECK(lengths.leading(ids, 1).tokens.size() == 1);  // "th": a token at least
  CHECK_THROWS_AS(lengths.bytes_of(std::vector<std::int32_t>{512}), ContractError);
  CHECK(reads_bytes(*byte_tokenizer()));
  CHECK_FALSE(reads_bytes(tokenizer));
}

TEST_CASE("the bytes of a text are its tokens where the tokenizer is that of bytes") {
  const test::TemporaryFolder folder;
  write_file(folder / "text", kText);
  TextData data(config_of(folder / "text"), byte_tokenizer());
  CHECK_FALSE(data.encodes());
  CHECK(ids_of(data.tokens(DataPart::valid)) ==
        std::vector<std::int32_t>(kText.begin() + 16, kText.begin() + 24));
  CHECK(data.size(DataPart::train) == 16);
  CHECK(data.bytes(DataPart::test) == 8);
  CHECK(data.tokens(DataPart::all).size() == 32);
  CHECK(data.bytes_per_token() == 1);
}

TEST_CASE("a text is cut in bytes and each part encoded") {
  const test::TemporaryFolder folder;
  write_file(folder / "text", kText);
  const auto tokenizer = test::pair_tokenizer();
  TextData data(config_of(folder / "text"), tokenizer);
  CHECK(data.encodes());
  CHECK(std::string(data.unit()) == "bytes");
  CHECK(ids_of(data.tokens(DataPart::train)) == document(*tokenizer, kText.substr(0, 16)));
  CHECK(ids_of(data.tokens(DataPart::test)) == document(*tokenizer, kText.substr(24)));
  CHECK(ids_of(data.tokens(DataPart::all)) == document(*tokenizer, kText));
  CHECK(data.bytes(DataPart::train) == 16);
  CHECK(data.bytes_per_token() ==
        16.0 / static_cast<double>(document(*tokenizer, kText.substr(0, 16)).size()));
}

TEST_CASE("a text that is encoded in memory gives the tokens of its shard, documents and all") {
  const test::TemporaryFolder folder;
  const std::string text = kText + std::string(2, '\0') + "another one" + '\0';
  const auto tokenizer = test::pair_tokenizer(GENERATE(true, false));
  write_file(folder / "text", text);
  write_shard(folder / "shard", *tokenizer, text);
  TextData encoded(config_of(folder / "text"), tokenizer);
  TextData shard(config_of(folder / "shard"), tokenizer);
  CHECK(ids_of(encoded.tokens(DataPart::all)) == ids_of(shard.tokens(DataPart::all)));
}

TEST_CASE("a shard is cut in tokens, and its bytes are those of the tokens") {
  const test::TemporaryFolder folder;
  const auto tokenizer = test::pair_tokenizer();
  const std::vector<std::int32_t> ids = document(*tokenizer, kText);
  write_shard(folder / "shard", *tokenizer, kText);
  TextData data(config_of(folder / "shard"), tokenizer);
  CHECK_FALSE(data.encodes());
  CHECK(std::string(data.unit()) == "tokens");
  CHECK(data.size() == ids.size());
  std::vector<std::int32_t> joined = ids_of(data.tokens(DataPart::train));
  for (const DataPart part : {DataPart::valid, DataPart::test}) {
    const auto more = ids_of(data.tokens(part));
    joined.insert(joined.end(), more.begin(), more.end());
  }
  CHECK(joined == ids);
  CHECK(data.bytes(DataPart::train) + data.bytes(DataPart::valid) + data.bytes(DataPart::test) ==
        32);
  CHECK(data.bytes(DataPart::all) == 32);
  CHECK(data.bytes_per_token() == 32.0 / static_cast<double>(ids.size()));
  CHECK_THROWS_AS(TextData(config_of(folder / "shard"), byte_tokenizer()), Error);
  DataConfig too_many = config_of(folder / "shard");
  too_many.split = {30, 30, 30};
  CHECK_THROWS_WITH(TextData(too_many, tokenizer), Catch::Contains("90 tokens"));
}

}  // namespace
}  // namespace bitnet
