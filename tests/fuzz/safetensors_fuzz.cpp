// SPDX-License-Identifier: MIT
// Any bytes as a safetensors file: refused with an Error, or every tensor can be read.
#include <vector>

#include "core/base/error.h"
#include "core/base/safetensors.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static bitnet::fuzz::InputFile input;
  try {
    const bitnet::SafetensorsFile file(input.fill({data, size}));
    for (const bitnet::SafetensorsFile::Entry& entry : file.entries()) {
      if (file.find(entry.name) != &entry) __builtin_trap();
      if (!entry.is_float()) continue;
      std::vector<float> values(static_cast<std::size_t>(entry.elements()));
      bitnet::decode_floats(entry, 0, values);
    }
  } catch (const bitnet::Error&) {
  }
  return 0;
}
