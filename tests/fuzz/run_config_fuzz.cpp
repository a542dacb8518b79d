// SPDX-License-Identifier: MIT
// Any bytes as the configuration of a run: refused with an Error, or read and valid.
#include <string>

#include "core/base/error.h"
#include "core/train/run_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    bitnet::read_run_config(std::string(reinterpret_cast<const char*>(data), size), "config.json");
  } catch (const bitnet::Error&) {
  }
  return 0;
}
