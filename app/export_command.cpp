// SPDX-License-Identifier: MIT
// bitnet export: a model for another program, and the proof that the files hold it.
#include <CLI/CLI.hpp>
#include <utility>
#include <vector>

#include "app/commands.h"
#include "app/conversion_output.h"
#include "core/base/error.h"
#include "core/convert/gguf_export.h"
#include "core/convert/hugging_face_export.h"
#include "core/convert/sharded_safetensors.h"

namespace bitnet {
namespace {

struct ExportArguments {
  std::string model, to, output;
  std::string float_dtype = "stored", max_shard_size = "5GB";      // Hugging Face
  std::string type = "auto", arch = "auto", byte_tokens = "rwkv";  // GGUF
  std::vector<std::pair<CLI::Option*, bool>> of_format;            // and whether of GGUF
  bool verify = true, json = false, force = false;

  bool gguf() const { return to == "gguf"; }
};

// An option of another format would be ignored, which is not what was meant.
void check_options(const ExportArguments& arguments) {
  for (const auto& [option, of_gguf] : arguments.of_format) {
    if (option->count() > 0 && of_gguf != arguments.gguf())
      throw UsageError(fmt::format("{} has no meaning with --to {}; it is for --to {}",
                                   option->get_name(), arguments.to,
                                   of_gguf ? "gguf" : "hf and hf-masters"));
  }
  if (arguments.to == "hf-masters" && arguments.float_dtype != "stored")
    throw UsageError(
        "--float-dtype has no meaning with --to hf-masters, whose floats are all bf16");
}

void export_to_hugging_face(const ExportArguments& arguments, const SharedReader& source,
                            AppContext& context, ConversionOutput& output) {
  const bool masters = arguments.to == "hf-masters";
  const HuggingFaceOptions options{
      .target = masters ? HuggingFaceTarget::masters : HuggingFaceTarget::packed,
      .float_bf16 = arguments.float_dtype == "bf16",
      .max_shard_bytes = parse_byte_size(arguments.max_shard_size),
      .allow_differences = arguments.force};
  const SharedReader form = hugging_face_form(source, options);
  output.target_format = masters ? "Hugging Face, latent weights in bf16"
                         : form->form() == WeightForm::packed ? "Hugging Face, packed"
                                                              : "Hugging Face, floats";
  ProgressLine progress;
  FolderOptions folder{.force = arguments.force, .progress = show_progress(progress), .verify = {}};
  if (arguments.verify) {
    folder.verify = [&](const std::filesystem::path& written) {
      progress.show("verifying");
      output.verification =
          verify_conversion(context.backend(), source, form, open_hugging_face(written));
    };
  }
  output.report = export_hugging_face(*form, arguments.output, options, folder);
}

void export_to_gguf(const ExportArguments& arguments, const SharedReader& source,
                    AppContext& context, ConversionOutput& output) {
  GgufExportOptions options;
  if (arguments.type != "auto") options.type = parse_gguf_type(arguments.type);
  if (arguments.arch != "auto") options.arch = arguments.arch;
  options.byte_tokens =
      arguments.byte_tokens == "gpt2" ? GgufByteTokens::gpt2 : GgufByteTokens::rwkv;
  options.allow_differences = options.replace = arguments.force;
  ProgressLine progress;
  options.progress = show_progress(progress);
  if (arguments.verify) {
    options.verify = [&](const std::filesystem::path& written) {
      progress.show("verifying");
      output.verification = verify_conversion(context.backend(), source, gguf_form(source, options),
                                              open_gguf(written));
    };
  }
  const GgufExportReport report = export_gguf(*source, arguments.output, options);
  output.target_format = fmt::format("GGUF, arch {}, {}", report.arch, to_string(report.type));
  output.report = report;
}

void run_export(const ExportArguments& arguments, AppContext& context) {
  check_options(arguments);
  const SharedReader source = open_model(arguments.model);
  ConversionOutput output{source->path(), arguments.output, source->description(), "", {}, {}};
  if (arguments.gguf()) {
    export_to_gguf(arguments, source, context, output);
  } else {
    export_to_hugging_face(arguments, source, context, output);
  }
  print_conversion(output, arguments.json);
}

}  // namespace

void add_export_command(CLI::App& program, AppContext& context) {
  CLI::App* command =
      program.add_subcommand("export", "Write a model for another program, and verify it");
  auto arguments = std::make_shared<ExportArguments>();
  command
      ->add_option("MODEL", arguments->model,
                   "A run, checkpoint or packed folder, a .safetensors file, or what import reads")
      ->required();
  command
      ->add_option(
          "--to", arguments->to,
          "hf: a folder for transformers, packed where the model is quantised; hf-masters: "
          "latent weights in bf16, quantised online; gguf: a file for llama.cpp and its relatives")
      ->check(CLI::IsMember({"hf", "hf-masters", "gguf"}))
      ->required();
  command->add_option("-o,--output", arguments->output, "The folder or file to write")->required();
  const auto option = [&](bool of_gguf, const char* name, std::string& value, const char* what) {
    CLI::Option* added = command->add_option(name, value, what)->capture_default_str();
    arguments->of_format.emplace_back(added, of_gguf);
    return added;
  };
  option(false, "--float-dtype", arguments->float_dtype,
         "With hf: stored or bf16, which halves f32 embeddings, gains and float weights and is not "
         "exact")
      ->check(CLI::IsMember({"stored", "bf16"}));
  option(false, "--max-shard-size", arguments->max_shard_size,
         "With hf and hf-masters: weights beyond this go to several files with an index");
  option(true, "--type", arguments->type,
         "With gguf: how the projections are stored; auto: q2_0 (arch bitnet-b1.58: i2_s) for "
         "ternary ones, q1_0 for b1, bf16 or f32 for floats")
      ->check(
          CLI::IsMember({"auto", "q2_0", "tq2_0", "tq1_0", "q1_0", "i2_s", "f16", "bf16", "f32"}));
  option(true, "--gguf-arch", arguments->arch,
         "With gguf: the architecture that the file names; auto: one that computes the model");
  option(true, "--gguf-tokenizer", arguments->byte_tokens,
         "With gguf: how a vocabulary of bytes is described: rwkv, which encodes all bytes as they "
         "are, or gpt2, for readers that know only that")
      ->check(CLI::IsMember({"rwkv", "gpt2"}));
  command->add_flag("--verify,!--no-verify", arguments->verify,
                    "Read the written files again and compare weights and logits (the default)");
  command->add_flag("--force", arguments->force,
                    "Replace a converted or packed model, and write what the other program would "
                    "compute differently");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  context.add_device_options(*command);
  command->callback([arguments, &context] { run_export(*arguments, context); });
}

}  // namespace bitnet
