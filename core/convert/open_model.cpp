// SPDX-License-Identifier: MIT
// Which format a path is, and a Transformer from any of them.
#include "core/base/error.h"
#include "core/base/half.h"
#include "core/checkpoint/model_metadata.h"
#include "core/checkpoint/run_folder.h"
#include "core/convert/model_reader.h"
#include "core/gguf/gguf_file.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

// A run has 'latest' and checkpoint folders, a checkpoint its COMPLETE; both have a config.json too.
bool is_folder_of_ours(const fs::path& folder) {
  if (looks_like_checkpoint(folder) || newest_checkpoint(folder)) return true;
  const fs::path file = folder / "model.safetensors";
  return fs::exists(file) && SafetensorsFile(file).metadata().contains(kFormatKey);
}

// Tensors of a reader on a backend; one at a time passes through the host's memory.
TensorSource source_of(Backend& backend, const ModelReader& reader) {
  return [&backend, &reader](const StoredTensor& wanted) {
    const auto elements = static_cast<std::size_t>(wanted.shape.elements());
    if (wanted.dtype == DType::u8) {
      std::vector<std::uint8_t> bytes(elements);
      reader.read_packed(wanted.name, bytes);
      Tensor tensor = backend.make_tensor(DType::u8, wanted.shape);
      backend.copy_from_host(bytes.data(), tensor);
      return tensor;
    }
    std::vector<float> floats(elements);
    reader.read_floats(wanted.name, floats);
    if (!wanted.may_be_bf16 || reader.float_dtype(wanted.name) == FloatDtype::f32) {
      Tensor tensor = backend.make_tensor(DType::f32, wanted.shape);
      backend.copy_from_host(floats.data(), tensor);
      return tensor;
    }
    std::vector<std::uint16_t> halves(elements);
    for (std::size_t i = 0; i < elements; ++i) halves[i] = to_bf16(floats[i]);
    Tensor tensor = backend.make_tensor(DType::bf16, wanted.shape);
    backend.copy_from_host(halves.data(), tensor);
    return tensor;
  };
}

}  // namespace

std::unique_ptr<ModelReader> open_model(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    // Tensors of ours carry their configuration, so config.json alone means another program.
    if (!is_folder_of_ours(path) && fs::exists(path / "config.json"))
      return open_hugging_face(path);
    return open_native(path);
  }
  if (fs::is_regular_file(path, ignored) && begins_as_gguf(path)) return open_gguf(path);
  // A file out of a folder of Hugging Face's means the folder.
  const bool safetensors = path.extension() == ".safetensors" && fs::exists(path);
  if (safetensors && !SafetensorsFile(path).metadata().contains(kFormatKey) &&
      fs::exists(path.parent_path() / "config.json")) {
    return open_hugging_face(path.has_parent_path() ? path.parent_path() : fs::path("."));
  }
  return open_native(path);
}

std::unique_ptr<Transformer> load_model(Backend& backend, const ModelReader& reader) {
  if (reader.is_native()) return load_model(backend, reader.path());
  auto transformer = std::make_unique<Transformer>(backend, reader.config(), reader.form(),
                                                   source_of(backend, reader));
  transformer->refresh_quantized();
  return transformer;
}

}  // namespace bitnet
