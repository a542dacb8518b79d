// SPDX-License-Identifier: MIT
// A model as a folder that `transformers` loads.
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/convert/model_views.h"
#include "core/convert/native_writer.h"

namespace bitnet {

enum class HuggingFaceTarget : std::uint8_t {
  packed,   // codes and scales; a float model as it is
  masters,  // latent weights in bf16, quantised online
};

struct HuggingFaceOptions {
  HuggingFaceTarget target = HuggingFaceTarget::packed;
  bool float_bf16 = false;  // round the floats of a packed or float model to bf16
  std::uint64_t max_shard_bytes = 5'000'000'000;
  bool allow_differences = false;  // write also what `transformers` computes differently
};

// The model in the form that the target holds: codes made from latent weights, weight-only
// quantisation as the floats that it stands for (`transformers` would quantise activations too),
// masters rounded to bf16. Throws UsageError for a target that the model has not the weights for,
// and, by name, for what `transformers` would compute differently.
SharedReader hugging_face_form(SharedReader model, const HuggingFaceOptions& options);

// Writes what hugging_face_form() gave.
ConversionReport export_hugging_face(const ModelReader& form, const std::filesystem::path& folder,
                                     const HuggingFaceOptions& options,
                                     const FolderOptions& folder_options);

}  // namespace bitnet
