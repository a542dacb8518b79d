// SPDX-License-Identifier: MIT
// bitnet quantize: a trained model as a packed 2-bit folder, and the proof that it computes the
// same.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "core/convert/native_writer.h"
#include "core/eval/energy.h"
#include "core/eval/logit_comparison.h"

namespace bitnet {
namespace {

using nlohmann::ordered_json;

struct QuantizeArguments {
  std::string checkpoint, output, float_dtype = "f32";
  bool json = false, force = false;
};

struct QuantizeReport {
  std::filesystem::path source, folder;
  std::string float_dtype;
  std::uintmax_t source_bytes = 0;
  PackedReport packed;
  std::vector<std::pair<std::string, CodeCounts>>
      codes_by_kind;                 // "q_proj", … in the order of the model
  std::int64_t sequence_tokens = 0;  // of the energy estimate
  struct Prices {
    const char* process;
    double fp32, fp16, bitnet;  // joule a token
  };
  std::vector<Prices> energy;
  LogitComparison comparison;
};

// "model.layers.0.self_attn.q_proj.weight" is of the kind "q_proj".
std::string projection_kind(const std::string& name) {
  const std::size_t end = name.rfind('.'), start = name.rfind('.', end - 1);
  return name.substr(start + 1, end - start - 1);
}

std::vector<std::pair<std::string, CodeCounts>> count_codes_by_kind(Backend& backend,
                                                                    const Parameters& parameters) {
  std::vector<std::pair<std::string, CodeCounts>> kinds;
  for (const Parameter& p : parameters.all()) {
    if (!p.packed) continue;
    const std::string kind = projection_kind(p.spec.name);
    auto found = std::find_if(kinds.begin(), kinds.end(),
                              [&](const auto& entry) { return entry.first == kind; });
    if (found == kinds.end()) found = kinds.insert(kinds.end(), {kind, {}});
    const CodeCounts counts = backend.count_codes(p.packed);
    found->second.minus += counts.minus;
    found->second.zero += counts.zero;
    found->second.plus += counts.plus;
    found->second.invalid += counts.invalid;
  }
  return kinds;
}

std::vector<QuantizeReport::Prices> estimate_energy(const ModelConfig& config,
                                                    std::int64_t tokens) {
  const OperationCounts counts = count_operations(config, tokens);
  std::vector<QuantizeReport::Prices> prices;
  for (const auto& [name, process] :
       {std::pair("45 nm", Process::nm45), std::pair("7 nm", Process::nm7)}) {
    const auto per_token = [&](const Energy& energy) {
      return energy.total() / static_cast<double>(tokens);
    };
    prices.push_back({name, per_token(float_energy(counts, process, Arithmetic::fp32)),
                      per_token(float_energy(counts, process, Arithmetic::fp16)),
                      per_token(bitnet_energy(counts, process, config.quantized_activations()))});
  }
  return prices;
}

ordered_json codes_json(const CodeCounts& codes) {
  const auto total = static_cast<double>(codes.total());
  return {{"minus", static_cast<double>(codes.minus) / total},
          {"zero", static_cast<double>(codes.zero) / total},
          {"plus", static_cast<double>(codes.plus) / total}};
}

ordered_json report_json(const QuantizeReport& r) {
  ordered_json object = {{"source", r.source.string()},
                         {"folder", r.folder.string()},
                         {"float_dtype", r.float_dtype},
                         {"latent_bytes", r.source_bytes},
                         {"packed_bytes", r.packed.packed_bytes},
                         {"weights", r.packed.weights},
                         {"projection_weights", r.packed.projection_weights},
                         {"bits_per_projection_weight", r.packed.bits_per_projection_weight},
                         {"bits_per_weight", r.packed.bits_per_weight},
                         {"codes", codes_json(r.packed.codes)}};
  for (const auto& [kind, codes] : r.codes_by_kind)
    object["codes_by_kind"][kind] = codes_json(codes);
  object["energy"] = {{"sequence_tokens", r.sequence_tokens},
                      {"joule_per_token", ordered_json::object()}};
  for (const auto& prices : r.energy)
    object["energy"]["joule_per_token"][prices.process] = {
        {"fp32", prices.fp32}, {"fp16", prices.fp16}, {"bitnet", prices.bitnet}};
  object["verification"] = {{"logits", r.comparison.compared},
                            {"different", r.comparison.different},
                            {"largest_difference", r.comparison.largest_difference}};
  return object;
}

std::string codes_line(const std::string& name, const CodeCounts& codes) {
  const double percent = 100.0 / static_cast<double>(codes.total());
  return fmt::format("  {:<10}  -1 {:5.2f} %   0 {:5.2f} %   +1 {:5.2f} %\n", name,
                     static_cast<double>(codes.minus) * percent,
                     static_cast<double>(codes.zero) * percent,
                     static_cast<double>(codes.plus) * percent);
}

std::string report_text(const QuantizeReport& r) {
  const PackedReport& p = r.packed;
  std::string text = fmt::format("{} -> {}\n", r.source.string(), r.folder.string());
  text += fmt::format("bytes: {} before, {} after ({:.2f} times smaller)\n", r.source_bytes,
                      p.packed_bytes,
                      static_cast<double>(r.source_bytes) / static_cast<double>(p.packed_bytes));
  text +=
      fmt::format("bits per weight: {:.4f} of the {} in projections, {:.4f} of all {}\n",
                  p.bits_per_projection_weight, p.projection_weights, p.bits_per_weight, p.weights);
  text += "weights:\n" + codes_line("all", p.codes);
  for (const auto& [kind, codes] : r.codes_by_kind) text += codes_line(kind, codes);
  text += fmt::format(
      "energy of the matrix products' arithmetic, a token of a sequence of {} (arXiv 2310.11453's "
      "estimate):\n",
      r.sequence_tokens);
  for (const auto& prices : r.energy)
    text += fmt::format(
        "  {:<5}  fp32 {:.3g} uJ   fp16 {:.3g} uJ   this model {:.3g} uJ ({:.1f} times less than "
        "fp16)\n",
        prices.process, prices.fp32 * 1e6, prices.fp16 * 1e6, prices.bitnet * 1e6,
        prices.fp16 / prices.bitnet);
  const LogitComparison& c = r.comparison;
  text +=
      c.different == 0
          ? fmt::format("verified: {} logits equal those of the source bit for bit\n", c.compared)
          : fmt::format(
                "compared: {} of {} logits differ from those of the source, by at most {:.6g}\n",
                c.different, c.compared, c.largest_difference);
  return text;
}

// Which data the model was trained on. A run's config that cannot be read is no reason not to pack.
std::map<std::string, std::string> metadata_of_run(const ModelReader& source) {
  try {
    if (const auto data = find_run_data(source)) return data_metadata(*data);
  } catch (const Error& e) {
    write_stderr_line(fmt::format("bitnet: the data of the run is not noted: {}", e.what()));
  }
  return {};
}

void check_equal(const QuantizeReport& r) {
  if (r.comparison.different == 0) return;
  throw Error(
      fmt::format("the packed model does not compute what its source does: {} of {} logits differ, "
                  "by at most {:.6g}; {} was not written",
                  r.comparison.different, r.comparison.compared, r.comparison.largest_difference,
                  r.folder.string()));
}

void run_quantize(const QuantizeArguments& arguments, AppContext& context) {
  QuantizeReport report;
  const std::unique_ptr<ModelReader> source = open_native(arguments.checkpoint);
  if (source->form() == WeightForm::packed)
    throw UsageError(fmt::format("{} is packed already", source->path().string()));
  report.source = source->path();
  report.folder = arguments.output;
  if (report.folder.empty()) report.folder = default_packed_folder(arguments.checkpoint);
  report.float_dtype = arguments.float_dtype;

  report.source_bytes = std::filesystem::file_size(source->path());
  report.sequence_tokens = source->config().max_position_embeddings;
  report.energy = estimate_energy(source->config(), report.sequence_tokens);

  const auto dtype = arguments.float_dtype == "bf16" ? FloatDtype::bf16 : FloatDtype::f32;
  const std::unique_ptr<Transformer> latent = load_model(context.backend(), *source);
  const auto verify = [&](const std::filesystem::path& written) {
    if (const auto tokenizer = source->tokenizer(); tokenizer != byte_tokenizer()) {
      tokenizer->save(written, source->config().max_position_embeddings);
      write_generation_config(*tokenizer, written);
    }
    const std::unique_ptr<Transformer> packed = load_model(context.backend(), written);
    report.codes_by_kind = count_codes_by_kind(packed->backend(), packed->parameters());
    report.comparison = compare_logits(*latent, *packed);
    if (dtype == FloatDtype::f32) check_equal(report);
  };
  report.packed =
      save_packed(*latent, report.folder, dtype, arguments.force, metadata_of_run(*source), verify);

  if (arguments.json) return write_json_line(report_json(report));
  write_stdout(report_text(report));
}

}  // namespace

void add_quantize_command(CLI::App& program, AppContext& context) {
  CLI::App* command = program.add_subcommand(
      "quantize", "Pack a trained model into 2 bits a weight, and verify it");
  auto arguments = std::make_shared<QuantizeArguments>();
  command
      ->add_option("CHECKPOINT", arguments->checkpoint,
                   "A run or checkpoint folder, or a .safetensors file")
      ->required();
  command->add_option("-o,--output", arguments->output,
                      "The packed folder (default: CHECKPOINT-packed)");
  command
      ->add_option("--float-dtype", arguments->float_dtype,
                   "f32 or bf16: how embedding, head and norm gains are stored. bf16 halves them "
                   "and is not exact")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  command->add_flag("--force", arguments->force, "Replace a packed model that is there");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  context.add_device_options(*command);
  command->callback([arguments, &context] { run_quantize(*arguments, context); });
}

}  // namespace bitnet
