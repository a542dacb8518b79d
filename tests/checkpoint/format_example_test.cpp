// SPDX-License-Identifier: MIT
// The worked example of docs/checkpoint_format.md, byte for byte.
#include <fmt/format.h>

#include <array>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/base/safetensors.h"
#include "core/quant/ternary.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;

namespace {

// "00000000  88 00 …  |text|" lines, 16 bytes each.
std::string hex_dump(const std::string& bytes) {
  std::string text;
  for (std::size_t first = 0; first < bytes.size(); first += 16) {
    text += fmt::format("{:08x} ", first);
    std::string readable;
    for (std::size_t i = first; i < first + 16; ++i) {
      if (i >= bytes.size()) {
        text += "   ";
        continue;
      }
      const auto byte = static_cast<unsigned char>(bytes[i]);
      text += fmt::format(" {:02x}", byte);
      readable += byte >= 0x20 && byte <= 0x7e ? bytes[i] : '.';
    }
    text += "  |" + readable + "|\n";
  }
  return text;
}

std::string example_file() {
  // [8, 4], as in the text.
  std::array<std::int8_t, 32> trits{};
  for (std::size_t i = 0; i < trits.size(); ++i) {
    trits[i] = static_cast<std::int8_t>(static_cast<int>((7 * i + i / 5) % 3) - 1);
  }
  std::array<std::uint8_t, 8> packed{};
  pack_codes(trits, 8, 4, packed);
  CHECK(packed == std::array<std::uint8_t, 8>{0x50, 0x25, 0x42, 0x94, 0x09, 0x50, 0x25, 0x42});
  const float scale = 0.5f;
  const std::array<std::uint16_t, 4> gain = {to_bf16(1.0f), to_bf16(2.0f), to_bf16(-1.5f),
                                             to_bf16(0.1f)};
  const std::vector<TensorToWrite> tensors = {
      {.name = "norm.weight", .dtype = "BF16", .shape = {4}, .bytes = gain.data()},
      {.name = "q_proj.weight", .dtype = "U8", .shape = {2, 4}, .bytes = packed.data()},
      {.name = "q_proj.weight_scale", .dtype = "F32", .shape = {1}, .bytes = &scale}};
  const test::TemporaryFolder folder;
  write_safetensors(folder / "example.safetensors", tensors, {});
  return read_text_file(folder / "example.safetensors");
}

}  // namespace

TEST_CASE("the worked example of docs/checkpoint_format.md is what we write") {
  const std::string page =
      read_text_file(std::string(BITNET_SOURCE_DIR) + "/docs/checkpoint_format.md");
  std::string documented;
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    if (line.size() > 10 && line.find("  |") != std::string::npos && line.back() == '|' &&
        line.compare(0, 5, "00000") == 0) {
      documented += line + "\n";
    }
  }
  CHECK(hex_dump(example_file()) == documented);
}
