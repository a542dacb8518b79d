// SPDX-License-Identifier: MIT
#include "core/data/byte_source.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/base/machine.h"

namespace bitnet {
namespace {

constexpr std::uint8_t kGzipMagic[] = {0x1f, 0x8b};
constexpr std::size_t kOutputChunk = std::size_t{1} << 18;
constexpr std::size_t kInputChunk = std::size_t{1} << 30;  // zlib counts in 32 bits

bool named_gzip(const std::filesystem::path& path) {
  return path.extension() == ".gz" || path.extension() == ".dz";
}

bool starts_gzip_member(std::span<const std::uint8_t> bytes) {
  return bytes.size() >= 2 && bytes[0] == kGzipMagic[0] && bytes[1] == kGzipMagic[1];
}

// zlib's state, freed with the object.
class Inflater {
 public:
  Inflater() {
    constexpr int kGzipOnly = 16;  // added to the window size: expect gzip, not zlib, framing
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK)
      throw Error("zlib could not start; is there enough memory?");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  void next_member() { inflateReset(&stream_); }

  struct Step {
    int status;            // zlib's
    std::size_t consumed;  // bytes of input
    std::size_t produced;  // bytes of output
  };
  Step step(std::span<const std::uint8_t> input, std::span<std::uint8_t> output) {
    stream_.next_in = const_cast<Bytef*>(input.data());  // zlib's interface predates const
    stream_.avail_in = static_cast<uInt>(std::min(input.size(), kInputChunk));
    stream_.next_out = output.data();
    stream_.avail_out = static_cast<uInt>(output.size());
    const uInt offered = stream_.avail_in;
    const int status = inflate(&stream_, Z_NO_FLUSH);
    return {status, offered - stream_.avail_in, output.size() - stream_.avail_out};
  }
  const char* message() const { return stream_.msg != nullptr ? stream_.msg : "unknown reason"; }

 private:
  z_stream stream_{};
};

}  // namespace

std::vector<std::uint8_t> inflate_gzip(std::span<const std::uint8_t> compressed,
                                       const std::filesystem::path& path, std::size_t max_bytes) {
  const auto fail = [&path](std::size_t offset, const std::string& reason) {
    throw FormatError(path.string(), offset, reason);
  };
  if (!starts_gzip_member(compressed))
    fail(0, "the name says gzip but the content does not begin with gzip's bytes 1f 8b; rename it");

  Inflater inflater;
  std::vector<std::uint8_t> content;
  std::vector<std::uint8_t> chunk(kOutputChunk);
  std::size_t offset = 0;
  while (true) {
    const auto [status, consumed, produced] = inflater.step(compressed.subspan(offset), chunk);
    offset += consumed;
    if (produced > max_bytes - content.size())
      fail(offset, fmt::format("inflates to more than {} bytes, the limit for data held in memory; "
                               "inflate it to a raw file, which is mapped instead",
                               max_bytes));
    content.insert(content.end(), chunk.begin(),
                   chunk.begin() + static_cast<std::ptrdiff_t>(produced));

    if (status == Z_STREAM_END) {
      const auto rest = compressed.subspan(offset);
      if (std::all_of(rest.begin(), rest.end(), [](std::uint8_t byte) { return byte == 0; }))
        return content;  // the end, perhaps padded with zeros as tapes are
      if (!starts_gzip_member(rest))
        fail(offset, fmt::format("{} bytes follow the gzip data and are not gzip", rest.size()));
      inflater.next_member();
    } else if (status == Z_MEM_ERROR) {
      throw Error(fmt::format("{}: not enough memory to inflate it", path.string()));
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      fail(offset, fmt::format("corrupted gzip data ({})", inflater.message()));
    } else if (consumed == 0 && produced == 0) {
      fail(offset, "the gzip data is truncated");  // all input is used and zlib asks for more
    }
  }
}

std::size_t ByteSource::max_inflated_bytes() {
  return static_cast<std::size_t>(std::min(std::int64_t{16} << 30, physical_memory() / 3));
}

ByteSource::ByteSource(const std::filesystem::path& path, std::size_t max_bytes) {
  MappedFile file(path);
  if (file.bytes().empty())
    throw FormatError(path.string(), 0, "the file is empty; a model needs bytes to learn from");
  if (!named_gzip(path)) {
    mapped_.emplace(std::move(file));
    return;
  }
  inflated_ = inflate_gzip(file.bytes(), path, max_bytes);
  if (inflated_.empty())
    throw FormatError(path.string(), 0,
                      "the gzip file holds no bytes; a model needs bytes to learn from");
}

}  // namespace bitnet
