// SPDX-License-Identifier: MIT
// Which architecture and type a model gets in a GGUF file, what is refused, and what rounding does.
#include <algorithm>

#include "core/base/error.h"
#include "core/convert/gguf_export.h"

namespace bitnet {
namespace {

const GgufArch& choose_arch(const ModelConfig& config, const std::string& name) {
  if (name.empty()) {
    const char* const by_profile = !config.use_sub_norms          ? "llama"
                                   : config.hidden_act == "relu2" ? "bitnet-b1.58"
                                                                  : "bitnet";
    return *find_gguf_arch(by_profile);
  }
  const GgufArch* arch = find_gguf_arch(name);
  if (arch == nullptr)
    throw UsageError(
        fmt::format("'{}' is not an architecture that models are written for; expected "
                    "one of: {}",
                    name, gguf_arch_names()));
  return *arch;
}

// The widths of the projections' rows.
std::vector<std::int64_t> row_widths(const ModelConfig& c) {
  return {c.hidden_size, c.num_attention_heads * c.head_size(), c.intermediate_size};
}

// Why the type cannot hold the model's codes, or "".
std::string type_fault(const ModelConfig& config, GgufType type) {
  const std::int64_t block = find_gguf_type(type)->block, group = config.weight_group_size;
  for (const std::int64_t width : row_widths(config)) {
    if (gguf_type_holds(type, width)) continue;
    const std::string others = gguf_types_that_hold(width);
    return fmt::format("the model has rows of {} weights, and {} stores blocks of {}; choose {}",
                       width, to_string(type), block, others.empty() ? "f16, bf16 or f32" : others);
  }
  if (group != 0 && type == GgufType::i2_s)
    return fmt::format(
        "the model has a scale for each {} weights, and i2_s one for a tensor; choose "
        "q2_0",
        group);
  if (group % block != 0)
    return fmt::format(
        "the model has a scale for each {} weights, and {} one for each {}; choose "
        "q2_0",
        group, to_string(type), block);
  return "";
}

// Norms are f32 in every file.
bool stored_as_bf16(const ModelReader& model) {
  const std::vector<TensorSpec> tensors = list_tensors(model.config());
  return std::all_of(tensors.begin(), tensors.end(), [&](const TensorSpec& spec) {
    return spec.role == TensorRole::norm_gain || model.float_dtype(spec.name) == FloatDtype::bf16;
  });
}

GgufType default_type(const ModelReader& model, const GgufArch& arch) {
  const ModelConfig& config = model.config();
  if (!config.quantized()) return stored_as_bf16(model) ? GgufType::bf16 : GgufType::f32;
  const GgufType wanted = config.linear_kind() == LinearKind::b1         ? GgufType::q1_0
                          : std::string_view(arch.hidden_act) == "relu2" ? GgufType::i2_s
                                                                         : GgufType::q2_0;
  return type_fault(config, wanted).empty() ? wanted : GgufType::q2_0;
}

void check_type(const ModelConfig& config, GgufType type) {
  const bool floats = type == GgufType::f32 || type == GgufType::f16 || type == GgufType::bf16;
  const GgufElements elements = elements_of(type);
  const bool codes = elements == GgufElements::trits || elements == GgufElements::signs;
  if (!floats && !codes)
    throw UsageError(
        fmt::format("models are not written as {}; choose one of q2_0, tq2_0, tq1_0, "
                    "i2_s, q1_0, f16, bf16, f32",
                    to_string(type)));
  if (floats) return;
  if (!config.quantized())
    throw UsageError(
        fmt::format("the projections are floats, which {} cannot hold; choose f16, bf16 "
                    "or f32",
                    to_string(type)));
  if (elements == GgufElements::signs && config.linear_kind() != LinearKind::b1)
    throw UsageError(
        "q1_0 holds only -1 and +1, and the model's weights are -1, 0 and +1; choose "
        "q2_0 (blocks of 64)");
  if (const std::string fault = type_fault(config, type); !fault.empty()) throw UsageError(fault);
}

// What no file of the architecture can say.
void check_structure(const ModelConfig& c, const GgufArch& arch) {
  const auto refuse = [](const std::string& what) {
    throw UsageError(what + "; its own packed form (bitnet quantize) holds it");
  };
  if (c.norm_kind() != NormKind::rms)
    refuse(
        "the model has LayerNorms, and every GGUF architecture that fits its blocks computes "
        "RMSNorm");
  if (!c.gated_mlp)
    refuse(
        "the model's feed-forward has no gate, and every GGUF architecture that fits its blocks "
        "computes one");
  if (c.use_sub_norms != arch.sub_norms)
    refuse(fmt::format("arch {} computes {} sub-norms, and the model has {}", arch.name,
                       arch.sub_norms ? "with" : "without", c.use_sub_norms ? "them" : "none"));
  if (!c.tie_word_embeddings && !arch.output_tensor)
    refuse(
        fmt::format("arch {} takes its output head from the embedding, and the model has a head "
                    "of its own (tie_word_embeddings is false)",
                    arch.name));
  if (c.num_attention_heads * c.head_size() != c.hidden_size && !arch.own_head_width)
    refuse(
        fmt::format("arch {} needs heads that fill the hidden size, and the model has {} heads of "
                    "{} for {}",
                    arch.name, c.num_attention_heads, c.head_size(), c.hidden_size));
}

// What a reader would load, and compute wrongly.
void check_function(const ModelConfig& c, const GgufArch& arch) {
  if (c.hidden_act == arch.hidden_act) return;
  std::string instead;
  if (c.use_sub_norms && c.hidden_act == "relu2")
    instead = "choose --gguf-arch bitnet-b1.58 (with --type i2_s it runs in ik_llama.cpp)";
  if (c.use_sub_norms && c.hidden_act == "silu") instead = "choose --gguf-arch bitnet";
  throw UsageError(fmt::format(
      "readers of arch {} compute {} where the model has {}: its text would look "
      "plausible and be far worse; {}{}write it all the same with --force",
      arch.name, arch.hidden_act, c.hidden_act, instead, instead.empty() ? "" : ", or "));
}

Rounding rounding_of(std::string_view name, const GgufTarget& target) {
  const bool codes = elements_of(target.type) != GgufElements::floats;
  const Rounding of_type = target.type == GgufType::f16    ? Rounding::f16
                           : target.type == GgufType::bf16 ? Rounding::bf16
                                                           : Rounding::none;
  if (name.ends_with("norm.weight")) return Rounding::none;
  if (!name.ends_with(".weight_scale")) return codes ? Rounding::none : of_type;
  if (target.scale_tensors || target.type == GgufType::i2_s) return Rounding::none;
  return codes ? Rounding::f16 : of_type;
}

}  // namespace

GgufTarget choose_gguf_target(const ModelReader& model, const GgufExportOptions& options) {
  const ModelConfig& config = model.config();
  GgufTarget target;
  target.arch = &choose_arch(config, options.arch);
  check_structure(config, *target.arch);
  if (!options.allow_differences) check_function(config, *target.arch);
  target.type = options.type ? *options.type : default_type(model, *target.arch);
  check_type(config, target.type);
  target.scale_tensors = target.arch->scale_tensors && config.quantized() &&
                         config.weight_group_size == 0 && target.type != GgufType::i2_s;
  return target;
}

SharedReader gguf_form(SharedReader model, const GgufExportOptions& options) {
  const GgufTarget target = choose_gguf_target(*model, options);
  if (model->config().quantized() && model->form() == WeightForm::latent)
    model = packed_view(std::move(model));
  if (!model->config().norm_gain) model = unit_gains_view(std::move(model));
  return rounded_view(std::move(model),
                      [target](std::string_view name) { return rounding_of(name, target); });
}

}  // namespace bitnet
