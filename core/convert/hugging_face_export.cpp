// SPDX-License-Identifier: MIT
#include "core/convert/hugging_face_export.h"

#include <nlohmann/json.hpp>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/checkpoint/folder_in_progress.h"
#include "core/convert/hugging_face_config.h"
#include "core/convert/sharded_safetensors.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

SharedReader bf16_floats(SharedReader source) {
  return rounded_view(std::move(source), [](std::string_view name) {
    return name.ends_with(".weight_scale") ? Rounding::none : Rounding::bf16;
  });
}

SharedReader masters_form(SharedReader model) {
  const ModelConfig& config = model->config();
  if (!config.quantized())
    throw UsageError(fmt::format("{}: is a float model, whose weights are no masters; use --to hf",
                                 model->path().string()));
  if (model->form() == WeightForm::packed)
    throw UsageError(
        fmt::format("{}: is packed and has no latent weights; use --to hf, or the checkpoint that "
                    "it was made from",
                    model->path().string()));
  return bf16_floats(std::move(model));
}

SharedReader packed_form(SharedReader model, bool float_bf16) {
  const ModelConfig& config = model->config();
  if (config.quantized() && !config.quantized_activations()) {
    model = dense_view(std::move(model));
  } else if (config.quantized() && model->form() == WeightForm::latent) {
    model = packed_view(std::move(model));
  }
  return float_bf16 ? bf16_floats(std::move(model)) : model;
}

// Names of the tokens that begin and end texts, unless the tokenizer came with such a file. Bytes
// have none: as a special token, the character that stands for byte 0 would be cut out of texts
// that hold it.
void write_special_tokens(const Tokenizer& tokenizer, const fs::path& folder) {
  const fs::path file = folder / "special_tokens_map.json";
  if (fs::exists(file)) return;
  ordered_json map = ordered_json::object();
  if (&tokenizer != byte_tokenizer().get()) {
    if (const auto start = tokenizer.document_start())
      map["bos_token"] = tokenizer.token_name(*start);
    if (!tokenizer.end_tokens().empty())
      map["eos_token"] = tokenizer.token_name(tokenizer.end_tokens().front());
  }
  write_file(file, map.dump(2) + "\n");
}

}  // namespace

SharedReader hugging_face_form(SharedReader model, const HuggingFaceOptions& options) {
  SharedReader form = options.target == HuggingFaceTarget::masters
                          ? masters_form(std::move(model))
                          : packed_form(std::move(model), options.float_bf16);
  const auto differences = transformers_differences(form->config(), form->form());
  if (!differences.empty() && !options.allow_differences)
    throw UsageError(
        fmt::format("{}: transformers has no model that computes {}: it would load the file and "
                    "compute something else; export with --force if that is what you want",
                    form->path().string(), fmt::join(differences, ", ")));
  return form;
}

ConversionReport export_hugging_face(const ModelReader& form, const fs::path& folder,
                                     const HuggingFaceOptions& options,
                                     const FolderOptions& folder_options) {
  FolderInProgress output(folder, folder_options.force);
  const auto tokenizer = form.tokenizer();
  // Loaders round everything to the dtype of config.json: bf16 only where that loses nothing.
  const FloatDtype dtype = common_float_dtype(form) == FloatDtype::bf16 && scales_are_bf16(form)
                               ? FloatDtype::bf16
                               : FloatDtype::f32;
  TensorStream stream(form, dtype, folder_options.progress);
  const std::uint64_t bytes = write_sharded(
      output.path(), stream.tensors(), {{kSourceKey, form.description()}}, options.max_shard_bytes);
  write_file(
      output.path() / "config.json",
      hugging_face_config_json(form.config(), form.form(), dtype, *tokenizer).dump(2) + "\n");
  write_generation_config(*tokenizer, output.path());
  tokenizer->save(output.path(), form.config().max_position_embeddings);
  write_special_tokens(*tokenizer, output.path());
  ConversionReport report = stream.report();
  report.bytes = bytes;
  if (folder_options.verify) folder_options.verify(output.path());
  output.move_to_target();
  return report;
}

}  // namespace bitnet
