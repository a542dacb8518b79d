// SPDX-License-Identifier: MIT
// What `bitnet import` and `bitnet export` print.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "app/standard_streams.h"
#include "core/convert/tensor_stream.h"
#include "core/convert/verify.h"

namespace bitnet {

struct ConversionOutput {
  std::filesystem::path source, target;
  std::string source_format, target_format;
  ConversionReport report;
  std::optional<VerifyReport> verification;  // nothing with --no-verify
};

// Warnings go to stderr either way.
void print_conversion(const ConversionOutput& output, bool json);

// "12 of 332 tensors" on `line`.
ConversionProgress show_progress(ProgressLine& line);

}  // namespace bitnet
