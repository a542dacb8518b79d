// SPDX-License-Identifier: MIT
#include "core/data/byte_source.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/base/random.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

namespace bitnet {
namespace {

using Bytes = std::vector<std::uint8_t>;

// One gzip member, made by zlib.
Bytes gzip(const Bytes& content) {
  z_stream stream{};
  if (deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::runtime_error("deflateInit2 failed");
  Bytes out(deflateBound(&stream, static_cast<uLong>(content.size())));
  Bytes in = content;
  stream.next_in = in.data();
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = deflate(&stream, Z_FINISH);
  deflateEnd(&stream);
  if (status != Z_STREAM_END) throw std::runtime_error("deflate failed");
  out.resize(out.size() - stream.avail_out);
  return out;
}

// Compressible but not trivial.
Bytes sample_bytes(std::size_t size) {
  const RandomStream random{11, RandomPurpose::test, 0};
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::uint8_t>('a' + random.below(i, 1 + i % 26));
  return bytes;
}

void write_bytes(const std::filesystem::path& path, std::span<const std::uint8_t> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

Bytes read_source(const std::filesystem::path& path) {
  const ByteSource source(path);
  return {source.bytes().begin(), source.bytes().end()};
}

Bytes inflate_all(std::span<const std::uint8_t> compressed, std::size_t max_bytes = 1 << 24) {
  return inflate_gzip(compressed, "test.gz", max_bytes);
}

// What inflating says, or "" when it succeeds; offset is where.
std::pair<std::string, std::uint64_t> inflate_error(const Bytes& compressed,
                                                    std::size_t max_bytes = 1 << 24) {
  try {
    inflate_all(compressed, max_bytes);
  } catch (const FormatError& error) {
    return {error.what(), error.offset()};
  }
  return {"", 0};
}

TEST_CASE("a raw file gives its own bytes") {
  const test::TemporaryFolder folder;
  const Bytes content = sample_bytes(1000);
  write_bytes(folder / "text", content);
  CHECK(read_source(folder / "text") == content);
}

TEST_CASE("a gzip file gives the bytes that were compressed") {
  const test::TemporaryFolder folder;
  const std::string name = GENERATE("text.gz", "text.dict.dz");
  const Bytes content = sample_bytes(1'000'000);  // several output chunks
  write_bytes(folder / name, gzip(content));
  CHECK(read_source(folder / name) == content);
}

TEST_CASE("a gzip file without gzip's name is raw data") {
  const test::TemporaryFolder folder;
  const Bytes compressed = gzip(sample_bytes(100));
  write_bytes(folder / "text.bin", compressed);
  CHECK(read_source(folder / "text.bin") == compressed);
}

TEST_CASE("bytes stay where they are when the source moves") {
  const test::TemporaryFolder folder;
  const std::string name = GENERATE("text", "text.gz");
  write_bytes(folder / "text", sample_bytes(50));
  write_bytes(folder / "text.gz", gzip(sample_bytes(50)));
  ByteSource source(folder / name);
  const auto before = source.bytes();
  const ByteSource moved = std::move(source);
  CHECK(moved.bytes().data() == before.data());
  CHECK(moved.bytes().size() == 50);
}

TEST_CASE("the members of a gzip file follow each other, an empty one adds nothing") {
  Bytes compressed = gzip({'a', 'b'});
  for (const Bytes& content : {Bytes{}, Bytes{'c'}}) {
    const Bytes member = gzip(content);
    compressed.insert(compressed.end(), member.begin(), member.end());
  }
  CHECK(inflate_all(compressed) == Bytes{'a', 'b', 'c'});
  compressed.resize(compressed.size() + 512, 0);  // padding
  CHECK(inflate_all(compressed) == Bytes{'a', 'b', 'c'});
}

TEST_CASE("bytes after the gzip data that are not gzip are refused") {
  Bytes compressed = gzip({'a', 'b'});
  const std::size_t end = compressed.size();
  compressed.insert(compressed.end(), {'x', 'y', 'z'});
  const auto [message, offset] = inflate_error(compressed);
  CHECK(offset == end);
  CHECK(message == "test.gz: at byte " + std::to_string(end) +
                       ": 3 bytes follow the gzip data and are not gzip");
}

TEST_CASE("a gzip file truncated at any length is refused, and the offset lies within it") {
  Bytes compressed = gzip(sample_bytes(500));
  const std::size_t first = compressed.size();
  const Bytes second = gzip(sample_bytes(20));
  compressed.insert(compressed.end(), second.begin(), second.end());
  for (std::size_t length = 0; length < compressed.size(); ++length) {
    if (length == first) continue;  // a whole member is a whole file
    const auto [message, offset] =
        inflate_error(Bytes(compressed.begin(), compressed.begin() + static_cast<long>(length)));
    INFO("length " << length);
    CHECK(message != "");
    CHECK(offset <= length);
  }
}

TEST_CASE("a flipped byte anywhere in a gzip file never gives other content") {
  const Bytes content = sample_bytes(500);
  const Bytes compressed = gzip(content);
  for (std::size_t i = 0; i < compressed.size(); ++i) {
    Bytes damaged = compressed;
    damaged[i] ^= 0x55;
    INFO("byte " << i);
    Bytes inflated = content;
    try {
      inflated = inflate_all(damaged);
    } catch (const FormatError&) {
    }
    CHECK(inflated == content);  // refused, or a byte of the header that carries no content
  }
}

TEST_CASE("a truncated gzip file says so, with its path") {
  const test::TemporaryFolder folder;
  Bytes compressed = gzip(sample_bytes(500));
  compressed.resize(compressed.size() / 2);
  write_bytes(folder / "half.gz", compressed);
  CHECK_THROWS_WITH(ByteSource(folder / "half.gz"), (folder / "half.gz").string() + ": at byte " +
                                                        std::to_string(compressed.size()) +
                                                        ": the gzip data is truncated");
}

TEST_CASE("a gzip file may fill its limit but not pass it") {
  const Bytes bomb = gzip(Bytes(3'000'000, 'a'));
  CHECK(inflate_all(bomb, 3'000'000).size() == 3'000'000);
  const auto message = inflate_error(bomb, 2'999'999).first;
  CHECK(message.find("inflates to more than 2999999 bytes") != std::string::npos);
  CHECK(ByteSource::max_inflated_bytes() < static_cast<std::size_t>(physical_memory()) / 2);
}

TEST_CASE("empty, missing and misnamed data is refused") {
  const test::TemporaryFolder folder;
  write_bytes(folder / "empty", {});
  write_bytes(folder / "empty.gz", {});
  write_bytes(folder / "nothing.gz", gzip({}));
  write_bytes(folder / "text.gz", sample_bytes(10));
  CHECK_THROWS_AS(ByteSource(folder / "empty"), FormatError);
  CHECK_THROWS_AS(ByteSource(folder / "empty.gz"), FormatError);
  CHECK_THROWS_AS(ByteSource(folder / "nothing.gz"), FormatError);
  CHECK_THROWS_AS(ByteSource(folder / "text.gz"), FormatError);
  CHECK_THROWS_AS(ByteSource(folder / "missing"), Error);
  CHECK_THROWS_AS(ByteSource(folder.path()), Error);
}

}  // namespace
}  // namespace bitnet
