// SPDX-License-Identifier: MIT
// A model in some file format, read tensor by tensor in our own form: whatever a file calls its
// tensors and however it packs them, a reader hands out the tensors of expected_tensors(config,
// form) under our names. Importing is reading one format and writing ours, exporting the reverse,
// verifying is reading both and comparing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/checkpoint/model_file.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

// Opened, its metadata checked: every tensor that config() asks for is there with a shape and dtype
// that read_*() can give. The weights themselves are read on demand, from a mapped file.
class ModelReader {
 public:
  virtual ~ModelReader() = default;

  // The file or folder that holds the model; of a native one the .safetensors file.
  virtual const std::filesystem::path& path() const = 0;
  // "bitnet, packed", "Hugging Face folder, packed, weight_scale divides", "GGUF, arch bitnet-b1.58"
  virtual std::string description() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual WeightForm form() const = 0;
  // One line each: what the user should know (a missing pre-tokenizer that was assumed, …).
  virtual std::vector<std::string> warnings() const { return {}; }
  // Never null; byte_tokenizer() where the model reads bytes.
  virtual std::shared_ptr<const Tokenizer> tokenizer() const = 0;
  // Of a native file; else empty.
  virtual std::map<std::string, std::string> metadata() const { return {}; }
  // Whether path() is a native file, which load_model(Backend&, path) uses where it lies.
  virtual bool is_native() const { return false; }

  // The narrowest dtype that holds a float tensor as it is stored. Scales are always f32.
  virtual FloatDtype float_dtype(std::string_view name) const = 0;
  // The whole of a float tensor, or of the scales ("….weight_scale", in the sense that multiplies).
  // Values are those stored, exactly (f16 and bf16 widened). Throws FormatError for what a model
  // cannot have (a scale that is not positive and finite, …).
  virtual void read_floats(std::string_view name, std::span<float> to) const = 0;
  // The codes of a projection of a packed model, [N / 4, K] in our layout (core/quant/ternary.h).
  virtual void read_packed(std::string_view name, std::span<std::uint8_t> to) const = 0;
};

// Whatever is at `path`: a run, checkpoint or packed folder of ours or one of its files, a folder
// from Hugging Face (config.json and *.safetensors, perhaps sharded), a .gguf file. Throws Error
// saying what was looked for, FormatError for a file that is damaged, or that holds a model which we
// would compute wrongly (naming the feature).
std::unique_ptr<ModelReader> open_model(const std::filesystem::path& path);

std::unique_ptr<ModelReader> open_native(const std::filesystem::path& path);
std::unique_ptr<ModelReader> open_hugging_face(const std::filesystem::path& folder);
std::unique_ptr<ModelReader> open_gguf(const std::filesystem::path& file);

// The model, ready to run, in the form it is stored in. Native files are used where they lie
// (core/checkpoint/model_file.h); the tensors of others are read into memory, one at a time.
std::unique_ptr<Transformer> load_model(Backend& backend, const ModelReader& reader);

}  // namespace bitnet
