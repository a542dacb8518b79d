// SPDX-License-Identifier: MIT
#include "core/data/token_shard.h"

#include <cstring>

#include "core/base/error.h"
#include "core/base/file.h"
#include "tests/support/catch.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"
#include "tests/tokenizer/small_bpe.h"

using namespace bitnet;
using test::TemporaryFolder;

namespace {

using Ids = std::vector<std::int32_t>;

Ids tokens_of(const TokenShard& shard) {
  Ids ids(static_cast<std::size_t>(shard.tokens()));
  shard.copy(0, ids);
  return ids;
}

std::shared_ptr<const Tokenizer> wide_tokenizer() {
  BpeData data = test::small_bpe();
  for (int i = 0; i < 70000; ++i) data.tokens.push_back(fmt::format("unused{}", i));
  return make_bpe_tokenizer(data, "test");
}

std::size_t file_count(const TemporaryFolder& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder.path()),
                                                std::filesystem::directory_iterator()));
}

void write_small_shard(const std::filesystem::path& path, const Tokenizer& tokenizer,
                       std::string_view text = "hello w") {
  TokenShardWriter writer(path, tokenizer);
  writer.append_text(text);
  writer.commit();
}

}  // namespace

TEST_CASE("a shard holds each document behind its start token", "[data]") {
  const TemporaryFolder folder;
  for (const auto& tokenizer : {make_bpe_tokenizer(test::small_bpe(), "test"), wide_tokenizer()}) {
    TokenShardWriter writer(folder / "a.safetensors", *tokenizer);
    using namespace std::string_literals;
    writer.append_text("hello w\0\0w"s);
    writer.append_text("hell\0"s);
    writer.append_text("");
    CHECK(writer.documents() == 3);
    writer.commit();

    const TokenShard shard(folder / "a.safetensors");
    const std::int32_t start = 261;
    CHECK(tokens_of(shard) == Ids{start, 259, 260, start, 'w', start, 258});
    CHECK(shard.tokens() == 7);
    CHECK(shard.text_bytes() == 12);
    CHECK(shard.vocab_size() == tokenizer->vocab_size());
    CHECK(shard.tokenizer() == tokenizer->description());
    CHECK(shard.at(1) == 259);
    Ids part(3);
    shard.copy(4, part);
    CHECK(part == Ids{'w', start, 258});
    CHECK_THROWS_AS(shard.copy(5, part), ContractError);
    CHECK_THROWS_AS(shard.at(7), ContractError);
    CHECK_THROWS_AS(shard.at(-1), ContractError);
    shard.check_made_by(*tokenizer);
    CHECK_THROWS_AS(shard.check_made_by(*byte_tokenizer()), Error);

    const SafetensorsFile file(folder / "a.safetensors");
    CHECK(file.entries()[0].dtype == (tokenizer->vocab_size() > 65536 ? "I32" : "U16"));
    CHECK(TokenShard::is_shard(folder / "a.safetensors"));
  }
  CHECK(file_count(folder) == 1);
}

TEST_CASE("bytes become their documents with byte 0 before each", "[data]") {
  const TemporaryFolder folder;
  write_small_shard(folder / "b.safetensors", *byte_tokenizer(), std::string_view("ab\0c", 4));
  CHECK(tokens_of(TokenShard(folder / "b.safetensors")) == Ids{0, 'a', 'b', 0, 'c'});
}

TEST_CASE("a long document is encoded piece by piece into the same tokens", "[data]") {
  const TemporaryFolder folder;
  const auto tokenizer = load_tokenizer(BITNET_SOURCE_DIR "/tests/fixtures/tokenizer");
  std::string text;
  for (int i = 0; text.size() < 1'200'000; ++i)
    text +=
        fmt::format("line {} \xff\xe2\x82 'LL  ñandú {}\n{}", i * 7919, i, i % 3 == 0 ? "\n" : "");
  text.insert(600'000, std::string(1'100'000, ' '));  // a word longer than a piece
  std::size_t calls = 0, last = 0;
  TokenShardWriter writer(folder / "c.safetensors", *tokenizer);
  writer.append_text(text, [&](std::size_t done) {
    CHECK(done >= last);
    last = done;
    ++calls;
  });
  writer.commit();
  CHECK(last == text.size());
  CHECK(calls > 2);
  Ids expected = tokenizer->encode(text);
  expected.insert(expected.begin(), *tokenizer->document_start());
  CHECK(tokens_of(TokenShard(folder / "c.safetensors")) == expected);
}

TEST_CASE("a writer that does not come to its end leaves nothing behind", "[data]") {
  const TemporaryFolder folder;
  const auto tokenizer = make_bpe_tokenizer(test::small_bpe(), "test");
  write_small_shard(folder / "d.safetensors", *tokenizer);
  {
    TokenShardWriter writer(folder / "d.safetensors", *tokenizer);
    writer.append_text("w");
  }
  CHECK(tokens_of(TokenShard(folder / "d.safetensors")).size() == 3);
  {
    TokenShardWriter writer(folder / "e.safetensors", *tokenizer);
    CHECK_THROWS_AS(writer.commit(), Error);
  }
  {
    const test::FileSizeLimit limit(1000);
    TokenShardWriter writer(folder / "f.safetensors", *tokenizer);
    CHECK_THROWS_AS((writer.append_text(std::string(100'000, 'x')), writer.commit()), Error);
  }
  CHECK(file_count(folder) == 1);
}

TEST_CASE("a file that is no shard is refused with its fault", "[data]") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "g.safetensors";
  const std::vector<std::uint16_t> ids = {1, 2, 300};
  using Metadata = std::map<std::string, std::string>;
  const Metadata good = {{"bitnet.kind", "token shard"},        {"bitnet.tokenizer", "x"},
                         {"bitnet.tokenizer_fingerprint", "y"}, {"bitnet.document_start", "none"},
                         {"bitnet.vocab_size", "301"},          {"bitnet.text_bytes", "3"}};
  const auto write = [&](const Metadata& metadata, const char* dtype = "U16",
                         std::vector<std::int64_t> shape = {3}, const char* name = "tokens") {
    const TensorToWrite tensor{name, dtype, std::move(shape), ids.data(), nullptr};
    write_safetensors(path, std::span(&tensor, 1), metadata);
  };
  const auto with = [&](const char* key, const char* value) {
    Metadata changed = good;
    changed[key] = value;
    return changed;
  };
  write(good);
  CHECK(TokenShard(path).at(2) == 300);
  for (const auto& [key, value] : good) {
    Metadata missing = good;
    missing.erase(key);
    write(missing);
    CHECK_THROWS_AS(TokenShard(path), FormatError);
  }
  write({});  // such as a model's
  CHECK_THROWS_WITH(TokenShard(path),
                    Catch::Contains("a safetensors file of 1 tensors, but no token shard"));
  for (const char* size : {"0", "-1", "", "12x", "99999999999", "70000"}) {
    write(with("bitnet.vocab_size", size));
    CHECK_THROWS_AS(TokenShard(path), FormatError);
  }
  write(with("bitnet.kind", "model"));
  CHECK_THROWS_AS(TokenShard(path), FormatError);
  write(good, "I16");
  CHECK_THROWS_AS(TokenShard(path), FormatError);
  write(good, "U16", {3, 1});
  CHECK_THROWS_AS(TokenShard(path), FormatError);
  write(good, "U16", {0});
  CHECK_THROWS_AS(TokenShard(path), FormatError);
  write(good, "U16", {3}, "ids");
  CHECK_THROWS_AS(TokenShard(path), FormatError);

  write(with("bitnet.vocab_size", "300"));  // found where the token is read
  const TokenShard shard(path);
  CHECK(shard.at(1) == 2);
  CHECK_THROWS_AS(shard.at(2), FormatError);

  write_file(path, "just a text {");
  CHECK_FALSE(TokenShard::is_shard(path));
  write_file(path, "");
  CHECK_FALSE(TokenShard::is_shard(path));
  CHECK_THROWS_AS(TokenShard(path), FormatError);
}
