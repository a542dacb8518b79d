// SPDX-License-Identifier: MIT
// A model as a GGUF file that llama.cpp and its relatives load. docs/formats.md says what is written
// and what is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "core/convert/gguf_names.h"
#include "core/convert/gguf_vocabulary.h"
#include "core/convert/model_views.h"
#include "core/convert/tensor_stream.h"
#include "core/gguf/gguf_type.h"

namespace bitnet {

struct GgufExportOptions {
  // Of the projections. By default q2_0 for b158 (i2_s in arch bitnet-b1.58, whose readers know no
  // q2_0), q1_0 for b1, and for a float model bf16 where that holds it, else f32.
  std::optional<GgufType> type;
  std::string arch;  // by default the one that computes the model
  GgufByteTokens byte_tokens = GgufByteTokens::rwkv;
  bool allow_differences = false;  // write also what today's readers would compute differently
  bool replace = false;            // a GGUF file that is there; never another kind of file
  ConversionProgress progress;     // may be empty
  // Called with the finished file before it gets its name; nothing is left where it throws.
  std::function<void(const std::filesystem::path& written)> verify;
};

struct GgufTarget {
  const GgufArch* arch = nullptr;
  GgufType type = GgufType::f32;
  // Scales are kept exactly, in tensors of their own beside codes of scale 1.
  bool scale_tensors = false;
};
// What the options mean for a model. Throws UsageError for what the format or its readers cannot
// hold, and, unless differences are allowed, for what readers would silently compute differently;
// the message names what to choose instead.
GgufTarget choose_gguf_target(const ModelReader& model, const GgufExportOptions& options);

// The model as open_gguf() will find it in the file: codes made from latent weights, gains of 1 where
// norms have none, floats and scales rounded as the type rounds them.
SharedReader gguf_form(SharedReader model, const GgufExportOptions& options);

struct GgufExportReport : ConversionReport {
  GgufType type = GgufType::f32;
  std::string arch;
};
// Writes gguf_form(model). The old file, if any, stays until the new one is complete.
GgufExportReport export_gguf(const ModelReader& model, const std::filesystem::path& file,
                             const GgufExportOptions& options);

}  // namespace bitnet
