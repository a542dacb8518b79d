// SPDX-License-Identifier: MIT
// Small models that every GGUF type can hold, and GGUF files changed by hand.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/checkpoint/model_file.h"
#include "core/convert/gguf_export.h"
#include "core/convert/model_views.h"
#include "core/gguf/gguf_file.h"
#include "tests/gguf/gguf_bytes.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

namespace bitnet::test {

// Rows of 256 and 512: whole blocks of every type.
inline ModelConfig gguf_config(const std::string& linear = "b158",
                               const std::string& profile = "bitnet") {
  ModelConfig config = tiny_config(linear, profile);
  config.vocab_size = 256;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.rope_theta = 5000;
  config.initializer_range = 0.05;
  return config;
}

// A random model of the configuration in a folder of ours.
inline SharedReader saved_model(Backend& backend, const ModelConfig& config,
                                const std::filesystem::path& folder) {
  TinyModel model(backend, config, 3);
  save_latent(model, folder);
  return open_native(folder);
}

// A GGUF file taken apart, to be changed and written again.
struct GgufParts {
  struct Tensor {
    std::string name;
    GgufType type;
    std::vector<std::int64_t> dims;
    std::vector<std::uint8_t> bytes;
  };
  std::vector<std::pair<std::string, std::string>> keys;  // name, entry
  std::vector<Tensor> tensors;

  explicit GgufParts(const std::filesystem::path& path) {
    const GgufFile file(path);
    for (const auto& [key, value] : file.metadata()) {
      std::string entry = raw_string(key) + raw(value.type);
      if (value.type == GgufValueType::array) entry += raw(value.element) + raw(value.count);
      keys.emplace_back(key, entry + std::string(value.bytes.begin(), value.bytes.end()));
    }
    for (const GgufFile::Tensor& t : file.tensors())
      tensors.push_back({t.name, t.type, t.dims, {t.bytes.begin(), t.bytes.end()}});
  }

  void erase(const std::string& key) {
    std::erase_if(keys, [&](const auto& entry) { return entry.first == key; });
  }
  // entry: as key_of() and its like make it.
  void set(const std::string& key, const std::string& entry) {
    erase(key);
    keys.emplace_back(key, entry);
  }
  void set_u32(const std::string& key, std::uint32_t value) {
    set(key, key_of(key, GgufValueType::u32, raw(value)));
  }
  void set_f32(const std::string& key, float value) {
    set(key, key_of(key, GgufValueType::f32, raw(value)));
  }
  void set_text(const std::string& key, const std::string& value) { set(key, text_of(key, value)); }
  Tensor& at(const std::string& name) {
    for (Tensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    throw std::runtime_error("no tensor " + name);
  }
  void erase_tensor(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }

  void write(const std::filesystem::path& path) const {
    GgufBytes bytes;
    for (const auto& [key, entry] : keys) bytes.key(entry);
    std::string data;
    for (const Tensor& t : tensors) {
      std::string info = raw_string(t.name) + raw(static_cast<std::uint32_t>(t.dims.size()));
      for (const std::int64_t dim : t.dims) info += raw(dim);
      bytes.tensor(info + raw(t.type) + raw(std::uint64_t{data.size()}));
      data.append(t.bytes.begin(), t.bytes.end());
      data.resize((data.size() + 31) / 32 * 32, '\0');
    }
    write_file(path, bytes.file(data));
  }
};

inline std::vector<float> read_floats(const ModelReader& reader, const std::string& name,
                                      std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  reader.read_floats(name, values);
  return values;
}
inline std::vector<std::int8_t> read_codes(const ModelReader& reader, const std::string& name,
                                           std::int64_t rows, std::int64_t columns) {
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows / 4 * columns));
  reader.read_packed(name, packed);
  std::vector<std::int8_t> codes(static_cast<std::size_t>(rows * columns));
  if (!unpack_codes(packed, rows, columns, codes)) throw std::runtime_error("no codes");
  return codes;
}

}  // namespace bitnet::test
