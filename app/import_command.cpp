// SPDX-License-Identifier: MIT
// bitnet import: a model of another program as a folder of ours, and the proof that it is the same.
#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/conversion_output.h"
#include "core/convert/native_writer.h"

namespace bitnet {
namespace {

struct ImportArguments {
  std::string path, output, linear;
  bool verify = true, json = false, force = false;
};

void run_import(const ImportArguments& arguments, AppContext& context) {
  SharedReader source = open_model(arguments.path);
  ConversionOutput output{source->path(), arguments.output, source->description(), "", {}, {}};
  if (!arguments.linear.empty()) source = bit_linear_view(std::move(source), arguments.linear);
  output.target_format = source->form() == WeightForm::packed ? "bitnet, packed"
                         : source->config().quantized()       ? "bitnet, latent weights"
                                                              : "bitnet, float model";
  {
    ProgressLine progress;
    FolderOptions options{
        .force = arguments.force, .progress = show_progress(progress), .verify = {}};
    if (arguments.verify) {
      options.verify = [&](const std::filesystem::path& written) {
        progress.show("verifying");
        output.verification =
            verify_conversion(context.backend(), source, source, open_native(written));
      };
    }
    output.report = write_native(*source, arguments.output, options);
  }
  print_conversion(output, arguments.json);
}

}  // namespace

void add_import_command(CLI::App& program, AppContext& context) {
  CLI::App* command = program.add_subcommand(
      "import", "Convert a model of Hugging Face or GGUF into a model folder, and verify it");
  auto arguments = std::make_shared<ImportArguments>();
  command
      ->add_option("PATH", arguments->path,
                   "A folder with config.json and *.safetensors, or a .gguf file")
      ->required();
  command->add_option("-o,--output", arguments->output, "The folder to write")->required();
  command
      ->add_option("--linear", arguments->linear,
                   "b158 or b1: make the projections of a float model BitLinears, with the "
                   "pretrained weights as their latent ones")
      ->check(CLI::IsMember({"b158", "b1"}));
  command->add_flag("--verify,!--no-verify", arguments->verify,
                    "Read the written folder again and compare weights and logits (the default)");
  command->add_flag("--force", arguments->force, "Replace a converted or packed model");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  context.add_device_options(*command);
  command->footer(
      "eval, generate and inspect read such a path directly; import once to have it quicker, or to "
      "train it further.");
  command->callback([arguments, &context] { run_import(*arguments, context); });
}

}  // namespace bitnet
