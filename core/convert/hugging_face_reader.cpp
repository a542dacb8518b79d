// SPDX-License-Identifier: MIT
// Folders of Hugging Face's: packed BitNet models, latent weights that are quantised online, float
// LLaMA models, and float files that hold a ternary model.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/convert/hugging_face_config.h"
#include "core/convert/model_reader.h"
#include "core/convert/sharded_safetensors.h"
#include "core/convert/ternary_weights.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using Entry = SafetensorsFile::Entry;
using Stored = ShardedSafetensors::Tensor;

enum class Projections : std::uint8_t {
  floats,   // as they are: latent weights, or a float model
  packed,   // U8 and weight_scale
  ternary,  // floats that are codes times scales
};

HuggingFaceConfig read_config(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  if (!fs::exists(file))
    throw Error(fmt::format("{}: holds no config.json, without which its tensors mean nothing",
                            folder.string()));
  return read_hugging_face_config(parse_json(read_text_file(file, kMaxConfigBytes), file.string()),
                                  file.string());
}

bool is_projection(std::string_view name) { return name.ends_with("_proj.weight"); }

bool is_scale(std::string_view name) { return name.ends_with("_proj.weight_scale"); }

// Names of 1bitLLM's files for ours.
std::string inner_norm_name(std::string name) {
  for (const auto& [ours, theirs] :
       {std::pair("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
        std::pair("mlp.ffn_sub_norm", "mlp.ffn_layernorm")}) {
    const std::size_t place = name.find(ours);
    if (place != std::string::npos) name.replace(place, std::string_view(ours).size(), theirs);
  }
  return name;
}

class HuggingFaceReader final : public ModelReader {
 public:
  explicit HuggingFaceReader(const fs::path& folder)
      : folder_(folder), source_(read_config(folder)), config_(source_.config), shards_(folder) {
    // Before anything is sized by the configuration.
    if (static_cast<std::uint64_t>(config_.num_hidden_layers) > shards_.tensors().size())
      refuse(fmt::format("config.json has {} layers, but there are only {} tensors",
                         config_.num_hidden_layers, shards_.tensors().size()));
    const bool any_packed =
        std::any_of(shards_.tensors().begin(), shards_.tensors().end(), [](const auto& item) {
          return is_projection(item.first) && item.second.entry->dtype == "U8";
        });
    if (any_packed) {
      projections_ = Projections::packed;
      if (!config_.quantized())
        refuse(
            "the projections are U8, but config.json has no quantization_config that says how "
            "they are packed");
    } else {
      check_projections_are_floats();
      recognise_ternary_floats();
    }
    form_ = projections_ == Projections::floats ? WeightForm::latent : WeightForm::packed;
    check_tensors();
    if (config_.vocab_size != kByteValues && !fs::exists(folder_ / "tokenizer.json") &&
        !fs::exists(folder_ / "tokenizer.model"))
      warnings_.push_back(fmt::format(
          "the folder has no tokenizer.json or tokenizer.model, so text is read as bytes, though "
          "the model has {} token ids; put its tokenizer beside it",
          config_.vocab_size));
  }

  const fs::path& path() const override { return folder_; }
  std::string description() const override {
    const std::string files =
        shards_.file_count() == 1 ? "" : fmt::format(" in {} files", shards_.file_count());
    const char* kind = projections_ == Projections::packed
                           ? (source_.scale_divides ? "packed, weight_scale divides"
                                                    : "packed, weight_scale multiplies")
                       : projections_ == Projections::ternary ? "floats that are ternary"
                       : config_.quantized()                  ? "latent weights"
                                                              : "floats";
    return fmt::format("Hugging Face folder, {}{}", kind, files);
  }
  const ModelConfig& config() const override { return config_; }
  WeightForm form() const override { return form_; }
  std::vector<std::string> warnings() const override { return warnings_; }

  std::shared_ptr<const Tokenizer> tokenizer() const override {
    if (auto found = load_tokenizer(folder_)) return found;
    return byte_tokenizer();
  }

  FloatDtype float_dtype(std::string_view name) const override {
    return !is_scale(name) && entry_of(name).dtype == "BF16" ? FloatDtype::bf16 : FloatDtype::f32;
  }

  void read_floats(std::string_view name, std::span<float> to) const override {
    if (is_scale(name)) return read_scales(std::string(name), to);
    decode_floats(entry_of(name), 0, to);
  }

  void read_packed(std::string_view name, std::span<std::uint8_t> to) const override {
    const Entry& entry = entry_of(name);
    if (projections_ == Projections::ternary) {
      const TernaryMatrix ternary = read_ternary(entry);
      return pack_codes(ternary.codes, entry.shape[0], entry.shape[1], to);
    }
    BITNET_CHECK(entry.bytes.size() == to.size(), "{} bytes for tensor '{}' of {}", to.size(), name,
                 entry.bytes.size());
    std::copy(entry.bytes.begin(), entry.bytes.end(), to.begin());
    if (const std::int64_t place = find_invalid_code(to); place >= 0)
      refuse_tensor(*stored(name), static_cast<std::uint64_t>(place),
                    "a 2-bit value of 3, expected 0, 1 or 2");
  }

 private:
  std::string stored_name(std::string_view name) const {
    return source_.inner_norm_names ? inner_norm_name(std::string(name)) : std::string(name);
  }
  const Stored* stored(std::string_view name) const { return shards_.find(stored_name(name)); }
  const Entry& entry_of(std::string_view name) const {
    const Stored* found = stored(name);
    BITNET_CHECK(found != nullptr, "the model has no tensor '{}'", name);
    return *found->entry;
  }

  // Before their values are looked at.
  void check_projections_are_floats() const {
    for (const ExpectedTensor& expected : expected_tensors(config_, WeightForm::latent))
      check_tensor(expected);
  }

  // A float model that is ternary has weight-only quantisation. One whose configuration says that
  // it is quantised, but not when, was unpacked (then its codes are what they are) or holds latent
  // weights.
  void recognise_ternary_floats() {
    const auto groups = find_ternary_groups(
        config_, [this](const std::string& name, std::int64_t first, std::span<float> to) {
          decode_floats(entry_of(name), first, to);
        });
    if (config_.quantized() && source_.online) {
      if (groups)
        warnings_.emplace_back(
            "the latent weights are ternary already; quantising them online, as the configuration "
            "asks for, makes every scale smaller by the share of zeros");
      return;
    }
    if (groups) {
      projections_ = Projections::ternary;
      if (!config_.quantized()) config_.activation_bits = 0;
      config_.linear = "b158";
      config_.weight_group_size = *groups;
      // The group size is one that find_ternary_groups() made to fit.
      return config_.validate();
    }
    if (config_.quantized())
      warnings_.emplace_back(
          "the projections are floats although the configuration says that they are packed; they "
          "are taken for latent weights, quantised in every pass");
  }

  void check_tensors() {
    std::set<std::string, std::less<>> known;
    for (const ExpectedTensor& expected : expected_tensors(config_, form_)) {
      if (projections_ == Projections::ternary && expected.scale) continue;
      known.insert(stored_name(expected.name));
      if (projections_ == Projections::ternary && expected.packed) continue;  // checked as floats
      check_tensor(expected);
      if (expected.scale) {
        std::vector<float> scales(static_cast<std::size_t>(entry_of(expected.name).elements()));
        read_scales(expected.name, scales);
      }
    }
    for (const auto& [name, tensor] : shards_.tensors()) {
      if (known.contains(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
      if (name == "lm_head.weight" && config_.tie_word_embeddings) {
        check_tied_head(tensor);
        continue;
      }
      refuse_tensor(tensor, 0,
                    "is no part of the model that config.json describes, so it would be computed "
                    "wrongly");
    }
  }

  void check_tensor(const ExpectedTensor& expected) const {
    const Stored* found = stored(expected.name);
    const std::string wanted = fmt::format("{} {}", expected.packed ? "U8" : "F32, BF16 or F16",
                                           shape_text(expected.shape));
    if (found == nullptr)
      refuse(
          fmt::format("tensor '{}' is missing; expected {}", stored_name(expected.name), wanted));
    const Entry& entry = *found->entry;
    const bool one_scale = expected.scale && expected.shape == std::vector<std::int64_t>{1} &&
                           entry.shape.empty();  // a scalar
    const bool fits = expected.packed ? entry.dtype == "U8" : entry.is_float();
    if (!fits || (entry.shape != expected.shape && !one_scale))
      refuse_tensor(
          *found, 0,
          fmt::format("is {} {}, expected {}", entry.dtype, shape_text(entry.shape), wanted));
  }

  // The head of a model whose configuration says that it is the embedding table.
  void check_tied_head(const Stored& head) const {
    const Entry& table = entry_of("model.embed_tokens.weight");
    if (head.entry->dtype == table.dtype && head.entry->shape == table.shape &&
        std::ranges::equal(head.entry->bytes, table.bytes))
      return;
    refuse_tensor(head, 0,
                  "differs from model.embed_tokens.weight, although tie_word_embeddings is true");
  }

  TernaryMatrix read_ternary(const Entry& entry) const {
    std::vector<float> weights(static_cast<std::size_t>(entry.elements()));
    decode_floats(entry, 0, weights);
    return split_ternary(weights, entry.shape[0], entry.shape[1], config_.weight_group_size);
  }

  // In the sense that multiplies. The reciprocal is rounded to fp32 once: a relative 2^-24, as the
  // division that it stands for.
  void read_scales(const std::string& name, std::span<float> to) const {
    if (projections_ == Projections::ternary) {
      const std::string weight = name.substr(0, name.size() - std::string_view("_scale").size());
      const TernaryMatrix ternary = read_ternary(entry_of(weight));
      BITNET_CHECK(ternary.scales.size() == to.size(), "{} scales for {}", to.size(), name);
      std::copy(ternary.scales.begin(), ternary.scales.end(), to.begin());
      return;
    }
    decode_floats(entry_of(name), 0, to);
    for (float& scale : to) {
      const float multiplier = source_.scale_divides ? 1.0f / scale : scale;
      if (!(scale > 0 && std::isfinite(scale) && multiplier > 0 && std::isfinite(multiplier)))
        refuse_tensor(*stored(name), 0,
                      fmt::format("scale {}, expected a positive finite number", scale));
      scale = multiplier;
    }
  }

  [[noreturn]] void refuse(const std::string& reason) const {
    throw FormatError(folder_.string(), 0, reason);
  }
  [[noreturn]] void refuse_tensor(const Stored& tensor, std::uint64_t byte,
                                  const std::string& reason) const {
    throw FormatError(tensor.file->path().string(), tensor.entry->offset + byte,
                      fmt::format("tensor {}: {}", printable(tensor.entry->name), reason));
  }

  fs::path folder_;
  HuggingFaceConfig source_;
  ModelConfig config_;
  ShardedSafetensors shards_;
  Projections projections_ = Projections::floats;
  WeightForm form_ = WeightForm::latent;
  std::vector<std::string> warnings_;
};

}  // namespace

std::unique_ptr<ModelReader> open_hugging_face(const fs::path& folder) {
  return std::make_unique<HuggingFaceReader>(folder);
}

}  // namespace bitnet
