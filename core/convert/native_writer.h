// SPDX-License-Identifier: MIT
// Any model as a folder of ours: model.safetensors with its configuration, config.json,
// generation_config.json and the tokenizer's files.
#pragma once

#include <filesystem>
#include <functional>

#include "core/convert/tensor_stream.h"

namespace bitnet {

struct FolderOptions {
  bool force = false;           // replace a model that is there, as FolderInProgress allows
  ConversionProgress progress;  // may be empty
  // Called with the finished folder before it gets its name; nothing is left where it throws.
  std::function<void(const std::filesystem::path& written)> verify;
};

// Codes, scales and bf16 floats are written as they are; f16 is widened.
ConversionReport write_native(const ModelReader& reader, const std::filesystem::path& folder,
                              const FolderOptions& options);

// generation_config.json with the tokenizer's ids, which folders of every kind have.
void write_generation_config(const Tokenizer& tokenizer, const std::filesystem::path& folder);

}  // namespace bitnet
