// SPDX-License-Identifier: MIT
// The container: what is read, and one file for each rule that it may break.
#include "core/gguf/gguf_file.h"

#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/gguf/gguf_writer.h"
#include "tests/gguf/gguf_bytes.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
using namespace bitnet::test;
using Type = GgufValueType;

namespace {

GgufBytes small_file() {
  GgufBytes bytes;
  bytes.key(text_of("general.architecture", "bitnet"))
      .key(key_of("a.count", Type::u32, raw(std::uint32_t{7})));
  return bytes;
}

void check_refused(const std::string& bytes, const std::string& reason) {
  INFO(reason);
  CHECK_THROWS_AS(GgufFile(as_bytes(bytes), "x.gguf"), FormatError);
  CHECK_THROWS_WITH(GgufFile(as_bytes(bytes), "x.gguf"),
                    Catch::Contains(reason) && Catch::StartsWith("x.gguf: at byte "));
}

}  // namespace

TEST_CASE("a GGUF file gives its metadata by type") {
  GgufBytes bytes = small_file();
  bytes.key(key_of("a.wide", Type::u64, raw(std::uint64_t{1} << 40)))
      .key(key_of("a.negative", Type::i8, raw(std::int8_t{-3})))
      .key(key_of("a.eps", Type::f32, raw(1e-5f)))
      .key(key_of("a.double", Type::f64, raw(0.25)))
      .key(key_of("a.flag", Type::boolean, raw(std::uint8_t{1})))
      .key(array_of("a.words", Type::string, 2, raw_string("one") + raw_string("")))
      .key(array_of("a.numbers", Type::i32, 2, raw(std::int32_t{5}) + raw(std::int32_t{-6})))
      .key(array_of("a.none", Type::string, 0, ""));
  const std::string text = bytes.file();
  const GgufFile file(as_bytes(text), "x.gguf");
  CHECK(file.text("general.architecture") == "bitnet");
  CHECK(file.integer("a.count", 0, 7) == 7);
  CHECK(file.integer("a.wide", 0, INT64_MAX) == std::int64_t{1} << 40);
  CHECK(file.integer("a.negative", -5, 5) == -3);
  CHECK(file.number("a.eps") == double{1e-5f});
  CHECK(file.number("a.double") == 0.25);
  CHECK(file.boolean("a.flag"));
  CHECK(file.texts("a.words") == std::vector<std::string_view>{"one", ""});
  CHECK(file.integers("a.numbers") == std::vector<std::int64_t>{5, -6});
  CHECK(file.texts("a.none").empty());
  CHECK(file.tensors().empty());
}

TEST_CASE("a GGUF value of another type than expected is refused by its key") {
  const std::string text = small_file()
                               .key(array_of("a.words", Type::string, 1, raw_string("one")))
                               .key(key_of("a.huge", Type::u64, raw(~std::uint64_t{0})))
                               .key(key_of("a.nan", Type::f32, raw(NAN)))
                               .file();
  const GgufFile file(as_bytes(text), "x.gguf");
  CHECK_THROWS_WITH(file.integer("a.missing", 1, 9),
                    "x.gguf: at byte 0: metadata key 'a.missing' is missing; expected an integer "
                    "from 1 to 9");
  CHECK_THROWS_WITH(file.integer("a.count", 8, 9),
                    Catch::Contains("metadata key 'a.count' is 7 (u32), expected an integer from 8 "
                                    "to 9"));
  CHECK_THROWS_WITH(file.integer("a.huge", 0, 9), Catch::Contains("18446744073709551615 (u64)"));
  CHECK_THROWS_WITH(file.text("a.count"), Catch::Contains("is 7 (u32), expected a string"));
  CHECK_THROWS_WITH(file.number("general.architecture"),
                    Catch::Contains("is the string 'bitnet', expected a number"));
  CHECK_THROWS_WITH(file.number("a.nan"), Catch::Contains("expected a number"));
  CHECK_THROWS_WITH(file.boolean("a.count"), Catch::Contains("expected true or false"));
  CHECK_THROWS_WITH(
      file.integers("a.words"),
      Catch::Contains("is an array of 1 string values, expected an array of integers"));
  CHECK_THROWS_WITH(file.texts("general.architecture"), Catch::Contains("an array of strings"));
  CHECK_THROWS_AS(file.integers("a.count"), FormatError);
}

TEST_CASE("a GGUF file gives its tensors, aligned as it says") {
  const std::string data(64 + 8, 'd');
  std::string text = small_file()
                         .tensor(tensor_of("first", {4, 3}, 0, 0))
                         .tensor(tensor_of("second", {2}, 0, 64))
                         .file(data);
  const GgufFile file(as_bytes(text), "x.gguf");
  REQUIRE(file.tensors().size() == 2);
  const GgufFile::Tensor* first = file.find("first");
  REQUIRE(first != nullptr);
  CHECK(first->columns() == 4);
  CHECK(first->rows() == 3);
  CHECK(first->bytes.size() == 48);
  CHECK(first->offset % 32 == 0);
  CHECK(file.find("second")->bytes.size() == 8);
  CHECK(file.find("third") == nullptr);

  GgufBytes wide;
  wide.key(key_of("general.alignment", Type::u32, raw(std::uint32_t{128})))
      .tensor(tensor_of("first", {4}, 0, 0))
      .tensor(tensor_of("second", {4}, 0, 128));
  text = wide.file(std::string(144, 'x'), 128);
  const GgufFile aligned(as_bytes(text), "x.gguf");
  CHECK(aligned.find("second")->offset % 128 == 0);

  GgufBytes old = small_file();
  old.version = 2;
  CHECK(GgufFile(as_bytes(text = old.file()), "x.gguf").has("a.count"));
}

TEST_CASE("a GGUF file that breaks a rule of the header is refused") {
  GgufBytes bytes = small_file();
  bytes.magic = "GGML";
  check_refused(bytes.file(), "does not begin with 'GGUF'");
  check_refused("GG", "does not begin with 'GGUF'");
  check_refused("GGUF", "ends within the version");
  bytes = small_file();
  bytes.version = 1;
  check_refused(bytes.file(), "version 1, expected 2 or 3");
  bytes.version = 3u << 24;
  check_refused(bytes.file(), "big-endian");
  bytes = small_file();
  bytes.keys = std::uint64_t{1} << 62;
  check_refused(bytes.file(), "limit of 65536");
  bytes.keys = 1000;
  check_refused(bytes.file(), "1000 metadata keys, but only");
  bytes = small_file();
  bytes.tensors = ~std::uint64_t{0};
  check_refused(bytes.file(), "limit of 262144");
  bytes.tensors = 100;
  check_refused(bytes.file(), "100 tensors, but only");
  bytes = small_file();
  bytes.keys = 3;  // one more than there are, and enough bytes for a small one
  check_refused(bytes.file() + std::string(20, '\0'), "a metadata key of 0 bytes");
}

TEST_CASE("a GGUF file that breaks a rule of its metadata is refused") {
  check_refused(small_file().key(key_of("a.count", Type::u32, raw(1))).file(),
                "metadata key 'a.count' occurs twice");
  check_refused(small_file().key(key_of("", Type::u32, raw(1))).file(),
                "a metadata key of 0 bytes");
  check_refused(small_file().key(key_of(std::string(65536, 'k'), Type::u32, raw(1))).file(),
                "a metadata key of 65536 bytes, expected 1 to 65535");
  check_refused(small_file().key(key_of("a", Type{13}, raw(1))).file(), "value type 13");
  check_refused(small_file().key(array_of("a", Type::array, 1, raw(4) + raw(1ull) + raw(1))).file(),
                "value type 9");
  check_refused(small_file().key(key_of("a", Type::boolean, raw(std::uint8_t{2}))).file(),
                "a boolean of 2");
  check_refused(small_file().key(array_of("a", Type::u64, 1ull << 61, "")).file(),
                "metadata key 'a': 2305843009213693952 values, but only 0 bytes follow");
  check_refused(small_file().key(array_of("a", Type::string, 1ull << 61, raw_string("x"))).file(),
                "the file is truncated or damaged");
  check_refused(small_file().key(raw_string("a") + raw(8) + raw(~0ull) + "text").file(),
                "a string of 18446744073709551615 bytes, but only 4 follow");
  check_refused(small_file().key(raw(~0ull) + std::string(24, 'x')).file(), "but only 24 follow");
  for (const std::uint32_t alignment : {0u, 24u, 1u << 30}) {
    check_refused(small_file().key(key_of("general.alignment", Type::u32, raw(alignment))).file(),
                  "expected a power of two");
  }
  check_refused(small_file().key(text_of("general.alignment", "32")).file(),
                "general.alignment is the string '32', expected u32");
}

TEST_CASE("a GGUF file that breaks a rule of its tensors is refused") {
  const std::string data(128, 'd');
  const auto refused = [&](const std::string& info, const std::string& reason) {
    check_refused(small_file().tensor(info).file(data), reason);
  };
  refused(tensor_of(std::string(64, 'n'), {4}, 0, 0), "name has 64 bytes, expected 1 to 63");
  refused(tensor_of("", {4}, 0, 0), "name has 0 bytes");
  refused(tensor_of("t", {}, 0, 0), "tensor 't': 0 dimensions, expected 1 to 4");
  refused(tensor_of("t", {1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  refused(tensor_of("t", {4, 0}, 0, 0), "dimension 1 is 0");
  refused(tensor_of("t", {1ull << 63}, 0, 0), "dimension 0 is");
  refused(tensor_of("t", {1ull << 32, 1ull << 32}, 0, 0), "at most 2^58 elements");
  refused(tensor_of("t", {1ull << 58, 2}, 0, 0), "at most 2^58 elements");
  refused(tensor_of("t", {4}, 99, 0), "unknown type 99");
  refused(tensor_of("t", {192}, 35, 0), "rows of 192 elements, which tq2_0 cannot hold");
  refused(tensor_of("t", {4}, 0, 16), "offset 16 is not a multiple of the alignment 32");
  refused(tensor_of("t", {4}, 0, 128), "takes 16 bytes at offset 128 of the data");
  refused(tensor_of("t", {33}, 0, 0), "the file has only 128; it is truncated");
  refused(tensor_of("t", {4}, 0, ~std::uint64_t{31}), "it is truncated");
  refused(tensor_of("t", {1ull << 56, 4}, 28, 0), "it is truncated");
  check_refused(
      small_file().tensor(tensor_of("t", {4}, 0, 0)).tensor(tensor_of("t", {4}, 0, 32)).file(data),
      "another tensor has the same name");
  check_refused(
      small_file().tensor(tensor_of("a", {9}, 0, 0)).tensor(tensor_of("b", {4}, 0, 32)).file(data),
      "tensor 'a': takes 36 bytes at offset 0 of the data, but tensor 'b' begins at 32");
  check_refused(
      small_file().tensor(tensor_of("a", {4}, 0, 0)).tensor(tensor_of("b", {4}, 0, 0)).file(data),
      "they overlap");
}

TEST_CASE("a q2_0 tensor with PrismML's blocks is recognised by its size") {
  // 16 rows of 256: 1152 bytes in blocks of 64, 1088 = 34 x 32 in blocks of 128.
  const std::string reason = "q2_0 with blocks of 128";
  check_refused(small_file().tensor(tensor_of("a", {256, 16}, 42, 0)).file(std::string(1088, 'x')),
                reason);
  check_refused(small_file()
                    .tensor(tensor_of("a", {256, 16}, 42, 0))
                    .tensor(tensor_of("b", {4}, 0, 1088))
                    .file(std::string(1200, 'x')),
                reason);
  const std::string ours =
      small_file().tensor(tensor_of("a", {256, 16}, 42, 0)).file(std::string(1152, 'x'));
  CHECK(GgufFile(as_bytes(ours), "x").find("a")->bytes.size() == 1152);
}

TEST_CASE("a GGUF file cut anywhere is refused, and a changed byte does no harm") {
  const std::string data(64 + 36, 'd');
  const std::string whole =
      small_file()
          .key(array_of("a.words", Type::string, 2, raw_string("one") + raw_string("two")))
          .tensor(tensor_of("first", {4, 3}, 0, 0))
          .tensor(tensor_of("second", {64, 2}, 42, 64))
          .file(data);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const std::string cut = whole.substr(0, length);
    INFO(length);
    CHECK_THROWS_AS(GgufFile(as_bytes(cut), "x.gguf"), FormatError);
  }
  for (std::size_t at = 0; at < whole.size() - data.size(); ++at) {
    for (const int mask : {1, 0x80, 0xff}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ mask);
      try {
        const GgufFile file(as_bytes(changed), "x.gguf");
        for (const GgufFile::Tensor& tensor : file.tensors())
          CHECK(tensor.offset + tensor.bytes.size() <= changed.size());
      } catch (const FormatError&) {
      }
    }
  }
}

TEST_CASE("what the GGUF writer writes, the reader reads; the same content is the same bytes") {
  const TemporaryFolder folder;
  GgufMetadata metadata;
  metadata.add_text("general.architecture", "bitnet");
  metadata.add_u32("a.count", 7);
  metadata.add_f32("a.eps", 1e-5);
  metadata.add_bool("a.flag", false);
  metadata.add_texts("a.words", std::vector<std::string>{"one", "two"});
  metadata.add_texts("a.none", {});
  metadata.add_i32s("a.types", std::vector<std::int32_t>{1, -1});
  const std::vector<std::uint8_t> a(36, 1), b(96, 2);
  const std::vector<GgufTensorToWrite> tensors = {
      {"b.weight", GgufType::i2_s, {128, 2}, [&] { return std::span<const std::uint8_t>(b); }},
      {"a.weight", GgufType::q2_0, {64, 2}, [&] { return std::span<const std::uint8_t>(a); }}};
  const std::uint64_t bytes = write_gguf(folder / "x.gguf", metadata, tensors);
  CHECK(bytes == std::filesystem::file_size(folder / "x.gguf"));
  const GgufFile file(folder / "x.gguf");
  CHECK(file.file_bytes() == bytes);
  CHECK(file.text("general.architecture") == "bitnet");
  CHECK(file.integer("a.count", 0, 9) == 7);
  CHECK(file.number("a.eps") == double{1e-5f});
  CHECK_FALSE(file.boolean("a.flag"));
  CHECK(file.texts("a.words") == std::vector<std::string_view>{"one", "two"});
  CHECK(file.texts("a.none").empty());
  CHECK(file.integers("a.types") == std::vector<std::int64_t>{1, -1});
  CHECK(file.find("b.weight")->type == GgufType::i2_s);
  CHECK(file.find("a.weight")->dims == std::vector<std::int64_t>{64, 2});
  CHECK(file.find("a.weight")->bytes[35] == 1);

  write_gguf(folder / "y.gguf", metadata, tensors);
  CHECK(read_text_file(folder / "x.gguf") == read_text_file(folder / "y.gguf"));

  CHECK_THROWS_AS(metadata.add_u32("a.count", 8), ContractError);
  CHECK_THROWS_AS(metadata.add_u32("a.other", std::int64_t{1} << 32), ContractError);
  const auto refused = [&](GgufTensorToWrite tensor) {
    CHECK_THROWS_AS(write_gguf(folder / "z.gguf", metadata, std::vector{tensor}), ContractError);
    CHECK_FALSE(std::filesystem::exists(folder / "z.gguf"));
  };
  GgufTensorToWrite tensor = tensors[1];
  tensor.name = std::string(64, 'n');
  refused(tensor);
  tensor = tensors[1];
  tensor.dims = {64, 3};  // other than fetched
  refused(tensor);
  tensor.dims = {60, 2};
  refused(tensor);
  CHECK_THROWS_AS(write_gguf(folder / "z.gguf", metadata, std::vector{tensors[0], tensors[0]}),
                  ContractError);
}
