// SPDX-License-Identifier: MIT
#include "core/convert/gguf_config.h"

#include <charconv>
#include <set>

#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {
namespace {

constexpr std::int64_t kMaxWidth = 1 << 20;  // as ModelConfig::visit_fields

// An f32 of the file as the number that a person wrote: 1e-5f is 1e-05, not 9.99999974e-06.
double as_written(double number) {
  const std::string text = fmt::format("{}", static_cast<float>(number));
  double result = number;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return result;
}

// The keys of one architecture, "bitnet.block_count", with their prefix.
class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, const GgufArch& arch)
      : file_(file), arch_(arch), prefix_(std::string(arch.name) + ".") {}

  ModelConfig read() {
    ModelConfig c;
    apply_profile(arch_.profile, c);
    c.hidden_size = integer("embedding_length", 64, kMaxWidth);
    c.intermediate_size = integer("feed_forward_length", 64, kMaxWidth);
    c.num_hidden_layers = integer("block_count", 1, 4096);
    c.num_attention_heads = integer("attention.head_count", 1, 4096);
    c.num_key_value_heads = integer_or("attention.head_count_kv", c.num_attention_heads, 1, 4096);
    c.max_position_embeddings = integer("context_length", 1, 1 << 24);
    read_head_width(c);
    c.rms_norm_eps = number_or("attention.layer_norm_rms_epsilon", std::nullopt, 1e-12, 1.0);
    c.rope_theta = number_or("rope.freq_base", 10000.0, 1.0, 1e12);
    if (has("hidden_activation")) {
      c.hidden_act = file_.text(key("hidden_activation"));
      if (c.hidden_act != "silu" && c.hidden_act != "relu2" && c.hidden_act != "gelu")
        file_.refuse(key("hidden_activation"),
                     fmt::format("is {}, expected silu, relu2 or gelu", printable(c.hidden_act)));
    }
    refuse_features(c);
    return c;
  }

  // Keys that may change the function in a way that nobody here knows of.
  std::vector<std::string> unknown_keys() const {
    std::vector<std::string> warnings;
    for (const auto& [name, value] : file_.metadata()) {
      if (!name.starts_with(prefix_)) continue;
      const std::string rest = name.substr(prefix_.size());
      if (!known_.contains(rest) && rest != "vocab_size" && rest != "tensor_data_layout")
        warnings.push_back(
            fmt::format("metadata key {} is not known and was ignored", printable(name)));
    }
    return warnings;
  }

 private:
  void read_head_width(ModelConfig& c) {
    const bool given = has("attention.key_length");
    if (given) {
      c.head_dim = integer("attention.key_length", 1, 4096);
      if (integer_or("attention.value_length", c.head_dim, 1, 4096) != c.head_dim)
        file_.refuse(
            key("attention.value_length"),
            fmt::format("differs from {}: heads whose values have another width than their "
                        "keys are not computed here",
                        key("attention.key_length")));
    } else if (c.hidden_size % c.num_attention_heads != 0) {
      file_.refuse(key("attention.head_count"),
                   fmt::format("is {}, which does not divide {} = {}", c.num_attention_heads,
                               key("embedding_length"), c.hidden_size));
    }
    const std::int64_t width = c.head_size();
    if (given && width * c.num_attention_heads == c.hidden_size) c.head_dim = 0;  // nothing special
    if (integer_or("rope.dimension_count", width, 1, 4096) != width)
      file_.refuse(key("rope.dimension_count"),
                   fmt::format("differs from the heads' width of {}: partly rotated heads are not "
                               "computed here",
                               width));
  }

  void refuse_features(const ModelConfig& c) {
    if (has("rope.scaling.type")) {
      const std::string type = file_.text(key("rope.scaling.type"));
      const bool neutral = type == "none" || (type == "linear" &&
                                              number_or("rope.scaling.factor", 1.0, 0, 1e9) == 1.0);
      if (!neutral)
        file_.refuse(
            key("rope.scaling.type"),
            fmt::format("is {}: scaled rotary positions are not computed here", printable(type)));
    } else if (number_or("rope.scaling.factor", 1.0, 0, 1e9) != 1.0) {
      file_.refuse(key("rope.scaling.factor"),
                   "is not 1: scaled rotary positions are not computed "
                   "here");
    }
    has("rope.scaling.original_context_length");  // of no effect without scaling
    if (number_or("rope.scale_linear", 1.0, 0, 1e9) != 1.0)
      file_.refuse(key("rope.scale_linear"),
                   "is not 1: scaled rotary positions are not computed "
                   "here");
    if (integer_or("expert_count", 0, 0, 1 << 20) != 0)
      file_.refuse(key("expert_count"), "is not 0: mixtures of experts are not computed here");
    integer_or("expert_used_count", 0, 0, 1 << 20);
    const std::int64_t window = integer_or("attention.sliding_window", 0, 0, 1 << 30);
    if (window != 0 && window < c.max_position_embeddings)
      file_.refuse(key("attention.sliding_window"),
                   fmt::format("is {}: attention to a window is not computed here", window));
    if (has("attention.causal") && !file_.boolean(key("attention.causal")))
      file_.refuse(key("attention.causal"), "is false: only causal attention is computed here");
  }

  bool has(const char* name) {
    known_.insert(name);
    return file_.has(key(name));
  }
  std::string key(const char* name) const { return prefix_ + name; }

  std::int64_t integer(const char* name, std::int64_t min, std::int64_t max) {
    known_.insert(name);
    return file_.integer(key(name), min, max);
  }
  std::int64_t integer_or(const char* name, std::int64_t fallback, std::int64_t min,
                          std::int64_t max) {
    return has(name) ? integer(name, min, max) : fallback;
  }
  double number_or(const char* name, std::optional<double> fallback, double min, double max) {
    if (!has(name) && fallback) return *fallback;
    const double number = as_written(file_.number(key(name)));
    if (number < min || number > max)
      file_.refuse(key(name), fmt::format("is {}, expected {} to {}", number, min, max));
    return number;
  }

  const GgufFile& file_;
  const GgufArch& arch_;
  std::string prefix_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace

GgufModelConfig read_gguf_config(const GgufFile& file) {
  GgufModelConfig result;
  const std::string name = file.text("general.architecture");
  result.arch = find_gguf_arch(name);
  if (result.arch == nullptr)
    file.refuse("general.architecture",
                fmt::format("is {}; this program computes {}", printable(name), gguf_arch_names()));
  constexpr const char* kParts = "split.count";
  if (file.has(kParts) && file.integer(kParts, 0, 65535) > 1)
    file.refuse(kParts,
                "says that the file is one part of a model; join the parts (llama.cpp's "
                "llama-gguf-split --merge)");
  ConfigReader reader(file, *result.arch);
  result.config = reader.read();
  result.warnings = reader.unknown_keys();
  return result;
}

void add_gguf_config(const GgufArch& arch, const ModelConfig& c, GgufMetadata& metadata) {
  const auto key = [&](const char* name) { return fmt::format("{}.{}", arch.name, name); };
  metadata.add_u32(key("vocab_size"), c.vocab_size);
  metadata.add_u32(key("context_length"), c.max_position_embeddings);
  metadata.add_u32(key("embedding_length"), c.hidden_size);
  metadata.add_u32(key("block_count"), c.num_hidden_layers);
  metadata.add_u32(key("feed_forward_length"), c.intermediate_size);
  metadata.add_u32(key("attention.head_count"), c.num_attention_heads);
  metadata.add_u32(key("attention.head_count_kv"), c.kv_heads());
  metadata.add_f32(key("attention.layer_norm_rms_epsilon"), c.rms_norm_eps);
  metadata.add_u32(key("rope.dimension_count"), c.head_size());
  metadata.add_f32(key("rope.freq_base"), c.rope_theta);
  if (c.num_attention_heads * c.head_size() != c.hidden_size) {
    metadata.add_u32(key("attention.key_length"), c.head_size());
    metadata.add_u32(key("attention.value_length"), c.head_size());
  }
  // For readers that can be told; today's assume the one of their architecture.
  if (c.hidden_act != arch.hidden_act) metadata.add_text(key("hidden_activation"), c.hidden_act);
}

}  // namespace bitnet
