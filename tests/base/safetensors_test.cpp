// SPDX-License-Identifier: MIT
#include "core/base/safetensors.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;

namespace {

// A file of a header and `data_bytes` zeros.
std::string make_file(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), 8);
  return file + header + std::string(data_bytes, '\0');
}

std::string read(const std::string& content) {
  const test::TemporaryFolder folder;
  write_file(folder / "f", content);
  try {
    SafetensorsFile file(folder / "f");
  } catch (const FormatError& error) {
    const std::string text = error.what(), path = (folder / "f").string();
    REQUIRE(text.starts_with(path + ": at byte "));
    return text.substr(path.size() + 2);
  }
  return "accepted";
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

}  // namespace

TEST_CASE("a written file reads back, whole cache lines first, then the widest dtype") {
  const test::TemporaryFolder folder;
  const std::vector<std::uint8_t> codes = {0x50, 0x25, 0x42};
  const std::vector<std::uint16_t> halves = {0x3f80, 0xc000};
  const float scale = 0.5f;
  const std::vector<TensorToWrite> tensors = {
      {.name = "codes", .dtype = "U8", .shape = {1, 3}, .bytes = codes.data()},
      {.name = "b.half", .dtype = "BF16", .shape = {2}, .fetch = [&] { return halves.data(); }},
      {.name = "scale", .dtype = "F32", .shape = {}, .bytes = &scale},
      {.name = "a.none", .dtype = "BF16", .shape = {0, 7}, .bytes = nullptr}};
  write_safetensors(folder / "f", tensors, {{"key", "value \"ü\""}});

  const SafetensorsFile file(folder / "f");
  CHECK(file.metadata() ==
        std::map<std::string, std::string>{{"format", "pt"}, {"key", "value \"ü\""}});
  REQUIRE(file.entries().size() == 4);
  CHECK(file.entries()[0].name == "a.none");  // no bytes: a whole number of lines
  CHECK(file.entries()[1].name == "scale");
  CHECK(file.entries()[2].name == "b.half");
  CHECK(file.entries()[3].name == "codes");
  CHECK(file.entries()[1].offset % 64 == 0);
  CHECK(file.entries()[1].elements() == 1);
  CHECK(file.find("a.none")->elements() == 0);
  CHECK(file.find("nothing") == nullptr);
  CHECK(std::memcmp(file.find("codes")->bytes.data(), codes.data(), 3) == 0);
  std::vector<float> floats(2);
  decode_floats(*file.find("b.half"), 0, floats);
  CHECK(floats == std::vector<float>{1.0f, -2.0f});
  decode_floats(*file.find("b.half"), 1, std::span(floats).first(1));
  CHECK(floats[0] == -2.0f);
}

TEST_CASE("tensors of whole cache lines begin at one, the others are aligned to their element") {
  const test::TemporaryFolder folder;
  const std::vector<std::uint8_t> zeros(4 * 96);
  std::vector<TensorToWrite> tensors;
  for (const std::int64_t elements : {16, 17, 32, 1, 96, 3}) {
    for (const char* dtype : {"F32", "BF16", "U8"})
      tensors.push_back({.name = fmt::format("{}{}", dtype, elements),
                         .dtype = dtype,
                         .shape = {elements},
                         .bytes = zeros.data()});
  }
  for (const std::size_t metadata : {0, 1, 40}) {  // header of another length
    write_safetensors(folder / "f", tensors, {{"key", std::string(metadata, 'x')}});
    const SafetensorsFile file(folder / "f");
    for (const auto& entry : file.entries()) {
      CAPTURE(entry.name, metadata);
      const std::size_t width = entry.bytes.size() / static_cast<std::size_t>(entry.shape[0]);
      CHECK(entry.offset % (entry.bytes.size() % 64 == 0 ? 64 : width) == 0);
    }
  }
}

TEST_CASE("misaligned tensors are read") {
  const test::TemporaryFolder folder;
  std::string content = make_file(
      "{\"b\":" + tensor("U8", "[1]", "[0,1]") + ",\"f\":" + tensor("F32", "[1]", "[1,5]") + "}",
      5);
  const float value = 1.5f;
  std::memcpy(content.data() + content.size() - 4, &value, 4);
  write_file(folder / "f", content);
  const SafetensorsFile file(folder / "f");
  float found = 0;
  decode_floats(*file.find("f"), 0, std::span(&found, 1));
  CHECK(found == 1.5f);
}

TEST_CASE("everything the safetensors format allows is accepted") {
  CHECK(read(make_file("{}", 0)) == "accepted");
  CHECK(read(make_file("{}      ", 0)) == "accepted");
  CHECK(read(make_file("{\"__metadata__\":{}}", 0)) == "accepted");
  CHECK(read(make_file("{\"a\":" + tensor("F64", "[]", "[0,8]") + "}", 8)) == "accepted");
  CHECK(read(make_file("{\"a\":" + tensor("I16", "[0]", "[0,0]") + "}", 0)) == "accepted");
  CHECK(read(make_file("{\"a\":" + tensor("F4", "[6]", "[0,3]") + "}", 3)) == "accepted");
  CHECK(read(make_file("{\"a\":" + tensor("F6_E2M3", "[4]", "[0,3]") + "}", 3)) == "accepted");
  // Any order of names: only the bytes are in order.
  CHECK(read(make_file("{\"b\":" + tensor("U8", "[2]", "[3,5]") +
                           ",\"a\":" + tensor("BOOL", "[3]", "[0,3]") + "}",
                       5)) == "accepted");
  for (const char* dtype : {"F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8"}) {
    CHECK(read(make_file("{\"a\":" + tensor(dtype, "[1]", "[0,1]") + "}", 1)) == "accepted");
  }
}

TEST_CASE("each broken rule of the safetensors format has its own message") {
  const std::string u8 = tensor("U8", "[4]", "[0,4]");
  CHECK(read("") == "at byte 0: the file has 0 bytes, too few for a safetensors header");
  CHECK(read("GGUF") == "at byte 0: the file has 4 bytes, too few for a safetensors header");
  CHECK(read(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10)) ==
        "at byte 0: header length 100000001 is above the format's limit of 100000000; this is not "
        "a safetensors file");
  CHECK(read(std::string(8, '\xff')).find("above the format's limit") != std::string::npos);
  CHECK(read(std::string("\x01\0\0\x01\0\0\0\0{}", 10)) ==
        "at byte 0: header length 16777217 is above this program's limit of 16777216");
  CHECK(read(std::string("\x03\0\0\0\0\0\0\0{}", 10)) ==
        "at byte 0: header length 3 but only 2 bytes follow; the file is truncated");
  CHECK(read(make_file("", 0)) ==
        "at byte 8: the header does not begin with '{'; this is not a safetensors file");
  CHECK(read(make_file(" {}", 0)).find("does not begin") != std::string::npos);
  CHECK(read(make_file("{}\n", 0)) == "at byte 10: the header does not end with '}' and spaces");
  CHECK(read(make_file("{\"a\" 1}", 0)).find("not valid JSON") != std::string::npos);
  CHECK(read(make_file("{/*x*/}", 0)).find("not valid JSON") != std::string::npos);
  CHECK(read(make_file("{\"\xff\":" + u8 + "}", 4)).find("UTF-8") != std::string::npos);
  CHECK(read(make_file("{\"a\":" + std::string(100000, '[') + "}", 4)).find("nested") !=
        std::string::npos);
  CHECK(read(make_file("{\"a\":" + u8 + ",\"a\":" + u8 + "}", 4)) ==
        "at byte 64: the key 'a' occurs twice");
  CHECK(read(make_file("{\"__metadata__\":[]}", 0)) == "at byte 9: __metadata__ is not an object");
  CHECK(read(make_file("{\"__metadata__\":{\"k\":1}}", 0)) ==
        "at byte 25: __metadata__: the value of 'k' is not a string");
  CHECK(read(make_file("{\"a\":1}", 0)) ==
        "at byte 9: tensor 'a': its description is not an object");
  CHECK(read(make_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4)) ==
        "at byte 9: tensor 'a': 'data_offsets' is missing");
  CHECK(read(make_file("{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4)) ==
        "at byte 9: tensor 'a': 'dtype' is missing");
  CHECK(read(make_file("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4)) ==
        "at byte 9: tensor 'a': 'shape' is missing");
  const auto a = [&](const std::string& description, std::size_t bytes = 4) {
    return read(make_file("{\"a\":" + description + "}", bytes));
  };
  const std::string at = "at byte 9: tensor 'a': ";
  CHECK(a("{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"x\":1}") ==
        at + "it has keys other than 'dtype', 'shape' and 'data_offsets'");
  CHECK(a(tensor("u8", "[4]", "[0,4]")) == at + "unknown dtype 'u8'");
  CHECK(a("{\"dtype\":8,\"shape\":[4],\"data_offsets\":[0,4]}") == at + "unknown dtype 'number'");
  CHECK(a(tensor("U8", "4", "[0,4]")) == at + "its shape is not an array");
  const std::string shape_refusal = at + "shape holds something other than integers in [0, 2^63)";
  CHECK(a(tensor("U8", "[-4]", "[0,4]")) == shape_refusal);
  CHECK(a(tensor("U8", "[4.0]", "[0,4]")) == shape_refusal);
  CHECK(a(tensor("U8", "[\"4\"]", "[0,4]")) == shape_refusal);
  CHECK(a(tensor("U8", "[18446744073709551615]", "[0,4]")) == shape_refusal);
  CHECK(a(tensor("U8", "[99999999999999999999999]", "[0,4]")) == shape_refusal);
  CHECK(a(tensor("U8", "[4294967296,4294967296]", "[0,4]")) ==
        at + "the product of its shape overflows 64 bits");
  CHECK(a(tensor("F32", "[1152921504606846976]", "[0,4]")) ==
        at + "the product of its shape overflows 64 bits");
  CHECK(a(tensor("F4", "[7]", "[0,4]")) == at + "shape [7] of F4 is not a whole number of bytes");
  CHECK(a(tensor("U8", "[4]", "[0]")) == at + "its data_offsets are not two numbers");
  CHECK(a(tensor("U8", "[4]", "{}")) == at + "its data_offsets are not two numbers");
  CHECK(a(tensor("U8", "[4]", "[0,-4]")) ==
        at + "data_offsets holds something other than integers in [0, 2^63)");
  CHECK(a(tensor("U8", "[4]", "[4,0]")) == at + "data_offsets [4, 0] run backwards");
  CHECK(a(tensor("U8", "[4]", "[0,4]"), 3) ==
        at + "data_offsets end at 4 but only 3 bytes follow the header; the file is truncated");
  CHECK(a(tensor("U8", "[4]", "[0,9223372036854775807]")).find("truncated") != std::string::npos);
  CHECK(a(tensor("F32", "[2]", "[0,4]")) ==
        at + "shape [2] of F32 takes 8 bytes, its data_offsets span 4");
  CHECK(a(tensor("U8", "[3]", "[1,4]")) ==
        at + "its bytes begin at 62 of the file, expected 61: tensors leave a gap");
  CHECK(a(tensor("U8", "[4]", "[0,4]"), 6) ==
        "at byte 65: 2 bytes follow the last tensor, expected none");
  CHECK(read(make_file("{\"a\":" + u8 + ",\"b\":" + tensor("U8", "[2]", "[2,4]") + "}", 4))
            .find("tensors overlap") != std::string::npos);
  CHECK(read(make_file("{\"a\":" + u8 + ",\"b\":" + tensor("U8", "[4]", "[0,4]") + "}", 4))
            .find("tensors overlap") != std::string::npos);
  CHECK(read(make_file("{\"a\":" + u8 + ",\"b\":" + tensor("U8", "[2]", "[6,8]") + "}", 8))
            .find("leave a gap") != std::string::npos);
}

TEST_CASE("two tensors of one name cannot be written") {
  const test::TemporaryFolder folder;
  const std::uint8_t byte = 0;
  const TensorToWrite once{.name = "a", .dtype = "U8", .shape = {1}, .bytes = &byte};
  CHECK_THROWS_AS(write_safetensors(folder / "f", std::vector{once, once}, {}), ContractError);
}

TEST_CASE("a model that does not fit on the disk leaves the old one") {
  const test::TemporaryFolder folder;
  const std::vector<float> weights(10000, 1.0f);
  const std::vector<TensorToWrite> small = {
      {.name = "w", .dtype = "F32", .shape = {2}, .bytes = weights.data()}};
  const std::vector<TensorToWrite> large = {
      {.name = "w", .dtype = "F32", .shape = {10000}, .bytes = weights.data()}};
  write_safetensors(folder / "f", small, {});
  {
    const test::FileSizeLimit limit(4096);
    CHECK_THROWS_AS(write_safetensors(folder / "f", large, {}), Error);
  }
  CHECK(SafetensorsFile(folder / "f").find("w")->elements() == 2);
}

TEST_CASE("bf16 rounds to nearest, ties to even, and keeps NaN and infinity") {
  CHECK(to_bf16(1.0f) == 0x3f80);
  CHECK(to_bf16(-2.5f) == 0xc020);
  CHECK(to_bf16(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // tie, even below
  CHECK(to_bf16(std::bit_cast<float>(0x3f818000u)) == 0x3f82);  // tie, even above
  CHECK(to_bf16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  CHECK(to_bf16(std::numeric_limits<float>::infinity()) == 0x7f80);
  CHECK(to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(to_bf16(std::bit_cast<float>(0x7f800001u)) == 0x7fc0);  // NaN with low bits only
}
