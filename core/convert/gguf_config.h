// SPDX-License-Identifier: MIT
// A model's configuration from the metadata of a GGUF file.
#pragma once

#include <string>
#include <vector>

#include "core/convert/gguf_names.h"
#include "core/gguf/gguf_file.h"
#include "core/gguf/gguf_writer.h"
#include "core/model/model_config.h"

namespace bitnet {

struct GgufModelConfig {
  const GgufArch* arch = nullptr;
  ModelConfig config;  // without what the tensors say: vocab_size, tied embeddings, quantisation
  std::vector<std::string> warnings;
};
// Throws FormatError for an architecture that we do not compute, and for features of one that we
// know but do not compute.
GgufModelConfig read_gguf_config(const GgufFile& file);

// The keys that read_gguf_config() reads.
void add_gguf_config(const GgufArch& arch, const ModelConfig& config, GgufMetadata& metadata);

}  // namespace bitnet
