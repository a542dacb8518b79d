// SPDX-License-Identifier: MIT
// Our own model files as a ModelReader.
#include <algorithm>

#include "core/base/error.h"
#include "core/checkpoint/run_folder.h"
#include "core/convert/model_reader.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

class NativeReader final : public ModelReader {
 public:
  explicit NativeReader(const fs::path& path)
      : file_(find_model_file(path)), source_(resolve_model(file_.path())) {}

  const fs::path& path() const override { return source_.file; }
  std::string description() const override {
    return source_.form == WeightForm::packed ? "bitnet, packed" : "bitnet, latent weights";
  }
  const ModelConfig& config() const override { return source_.config; }
  WeightForm form() const override { return source_.form; }
  std::map<std::string, std::string> metadata() const override { return source_.metadata; }
  bool is_native() const override { return true; }

  std::shared_ptr<const Tokenizer> tokenizer() const override {
    if (auto found = load_tokenizer(source_.folder)) return found;
    if (looks_like_checkpoint(source_.folder)) {  // a run keeps its tokenizer once
      if (auto found = load_tokenizer(source_.folder.parent_path())) return found;
    }
    return byte_tokenizer();
  }

  FloatDtype float_dtype(std::string_view name) const override {
    return entry_of(name).dtype == "BF16" ? FloatDtype::bf16 : FloatDtype::f32;
  }
  void read_floats(std::string_view name, std::span<float> to) const override {
    decode_floats(entry_of(name), 0, to);
  }
  void read_packed(std::string_view name, std::span<std::uint8_t> to) const override {
    const SafetensorsFile::Entry& entry = entry_of(name);
    BITNET_CHECK(entry.bytes.size() == to.size(), "{} bytes for tensor '{}' of {}", to.size(), name,
                 entry.bytes.size());
    std::copy(entry.bytes.begin(), entry.bytes.end(), to.begin());
    if (const std::int64_t place = find_invalid_code(to); place >= 0) {
      throw FormatError(path().string(), entry.offset + static_cast<std::uint64_t>(place),
                        fmt::format("tensor '{}': a 2-bit value of 3, expected 0, 1 or 2", name));
    }
  }

 private:
  const SafetensorsFile::Entry& entry_of(std::string_view name) const {
    const SafetensorsFile::Entry* entry = file_.find(name);
    BITNET_CHECK(entry != nullptr, "the model has no tensor '{}'", name);
    return *entry;
  }

  SafetensorsFile file_;
  ModelSource source_;
};

}  // namespace

std::unique_ptr<ModelReader> open_native(const fs::path& path) {
  return std::make_unique<NativeReader>(path);
}

}  // namespace bitnet
