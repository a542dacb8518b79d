// SPDX-License-Identifier: MIT
// Folders as other programs write them, made tensor by tensor, to be read, bent and refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/base/half.h"
#include "core/base/safetensors.h"
#include "core/convert/model_views.h"
#include "tests/support/tensors.h"

namespace bitnet::test {

struct StoredBytes {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> bytes;
};

inline std::vector<std::uint8_t> encode_floats(const std::vector<float>& values,
                                               const std::string& dtype) {
  std::vector<std::uint8_t> bytes;
  for (const float value : values) {
    const auto wide = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t bits = dtype == "F32"   ? wide
                               : dtype == "F16" ? to_f16(value)
                                                : to_bf16(value);
    for (int i = 0; i < (dtype == "F32" ? 4 : 2); ++i)
      bytes.push_back(static_cast<std::uint8_t>(bits >> (8 * i)));
  }
  return bytes;
}

struct HuggingFaceFiles {
  nlohmann::ordered_json config;
  std::map<std::string, StoredBytes> tensors;

  void set_floats(const std::string& name, std::vector<std::int64_t> shape,
                  const std::vector<float>& values, const std::string& dtype) {
    tensors[name] = {dtype, std::move(shape), encode_floats(values, dtype)};
  }

  std::vector<TensorToWrite> to_write() const {
    std::vector<TensorToWrite> list;
    for (const auto& [name, tensor] : tensors)
      list.push_back({.name = name,
                      .dtype = tensor.dtype,
                      .shape = tensor.shape,
                      .bytes = tensor.bytes.data(),
                      .fetch = {}});
    return list;
  }

  void write_config(const std::filesystem::path& folder) const {
    make_folders(folder);
    write_file(folder / "config.json", config.dump());
  }
  void write(const std::filesystem::path& folder) const {
    write_config(folder);
    write_safetensors(folder / "model.safetensors", to_write(), {});
  }
};

// A plausible config.json: two layers of hidden size 64.
inline nlohmann::ordered_json small_hugging_face_config(const std::string& model_type) {
  const bool bitnet = model_type == "bitnet";
  return {{"architectures", {bitnet ? "BitNetForCausalLM" : "LlamaForCausalLM"}},
          {"model_type", model_type},
          {"torch_dtype", "bfloat16"},
          {"vocab_size", 256},
          {"hidden_size", 64},
          {"intermediate_size", 128},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"hidden_act", bitnet ? "relu2" : "silu"},
          {"max_position_embeddings", 48},
          {"rope_theta", 10000.0},
          {"rms_norm_eps", 1e-5},
          {"tie_word_embeddings", true},
          {"pad_token_id", nullptr},
          {"rope_scaling", nullptr}};
}

// The tensors of that config, by expected_tensors(): random floats, random codes, scales from
// `scales` (one a projection, in order).
inline void add_random_tensors(HuggingFaceFiles& files, const ModelConfig& config, WeightForm form,
                               const std::string& float_dtype, const std::string& scale_dtype = "",
                               const std::vector<float>& scales = {}) {
  std::uint32_t seed = 1;
  std::size_t next_scale = 0;
  for (const ExpectedTensor& tensor : expected_tensors(config, form)) {
    const std::int64_t elements = tensor.elements();
    if (tensor.scale) {
      files.set_floats(tensor.name, tensor.shape, {scales.at(next_scale++)}, scale_dtype);
    } else if (tensor.packed) {
      StoredBytes bytes{"U8", tensor.shape, {}};
      for (const std::int32_t byte : random_tokens(seed++, elements, 81)) {  // 3^4 bytes of codes
        const int code = byte % 3 | byte / 3 % 3 << 2 | byte / 9 % 3 << 4 | byte / 27 << 6;
        bytes.bytes.push_back(static_cast<std::uint8_t>(code));
      }
      files.tensors[tensor.name] = std::move(bytes);
    } else {
      const bool gain = tensor.shape.size() == 1;
      const auto values = random_numbers(seed++, elements, 0.2, gain ? 1.0 : 0.0);
      files.set_floats(tensor.name, tensor.shape, {values.begin(), values.end()}, float_dtype);
    }
  }
}

inline ModelConfig small_model_config(const std::string& profile) {
  ModelConfig config;
  apply_profile(profile, config);
  config.vocab_size = 256;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.max_position_embeddings = 48;
  return config;
}

inline const std::vector<std::int32_t> kTextTokens = {0, 'A', ' ', 't', 'e', 'x', 't', '.'};

inline std::vector<float> read_floats(const ModelReader& reader, const std::string& name,
                                      std::int64_t elements) {
  std::vector<float> values(static_cast<std::size_t>(elements));
  reader.read_floats(name, values);
  return values;
}

}  // namespace bitnet::test
