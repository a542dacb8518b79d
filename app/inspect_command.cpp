// SPDX-License-Identifier: MIT
// bitnet inspect: what a model file holds, and what is suspicious about it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/standard_streams.h"
#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/convert/inspect_model.h"

namespace bitnet {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMaxNameWidth = 64;  // longer names push their line to the right

const char* form_name(WeightForm form) { return form == WeightForm::packed ? "packed" : "latent"; }

ordered_json config_json(ModelConfig config) {
  return write_fields([&](FieldVisitor& visitor) { config.visit_fields(visitor); });
}

double share(std::int64_t count, const CodeCounts& counts) {
  return counts.total() == 0 ? 0.0
                             : static_cast<double>(count) / static_cast<double>(counts.total());
}

ordered_json tensor_json(const TensorReport& t) {
  ordered_json object = {
      {"name", t.name}, {"dtype", t.dtype}, {"shape", t.shape}, {"bytes", t.bytes}};
  if (t.values) {
    object["min"] = t.values->min;
    object["max"] = t.values->max;
    object["mean"] = t.values->mean;
    object["std"] = t.values->std;
    object["non_finite"] = t.values->non_finite;
  }
  if (t.weight_scale) object["weight_scale"] = *t.weight_scale;
  if (t.codes)
    object["codes"] = {{"minus", share(t.codes->minus, *t.codes)},
                       {"zero", share(t.codes->zero, *t.codes)},
                       {"plus", share(t.codes->plus, *t.codes)},
                       {"invalid", t.codes->invalid}};
  return object;
}

ordered_json report_json(const InspectReport& report) {
  ordered_json object = {
      {"file", report.file.string()}, {"format", report.format}, {"file_bytes", report.file_bytes}};
  object["form"] = report.config ? ordered_json(form_name(report.form)) : ordered_json();
  object["config"] = report.config ? config_json(*report.config) : ordered_json();
  object["metadata"] = report.metadata;
  object["tensors"] = ordered_json::array();
  for (const TensorReport& t : report.tensors) object["tensors"].push_back(tensor_json(t));
  object["warnings"] = report.warnings;
  return object;
}

std::string tensor_line(const TensorReport& t, std::size_t name_width) {
  std::string line = fmt::format("{:<{}}  {:<4}  {:<14}  {:>11}", printable(t.name), name_width,
                                 t.dtype, fmt::format("[{}]", fmt::join(t.shape, ", ")), t.bytes);
  if (t.values)
    line += fmt::format("  min {:.4g} max {:.4g} mean {:.4g} std {:.4g}", t.values->min,
                        t.values->max, t.values->mean, t.values->std);
  if (t.codes)
    line +=
        fmt::format("  -1 {:.1f} %  0 {:.1f} %  +1 {:.1f} %", 100 * share(t.codes->minus, *t.codes),
                    100 * share(t.codes->zero, *t.codes), 100 * share(t.codes->plus, *t.codes));
  if (t.weight_scale) line += fmt::format("  scale {:.6g}", *t.weight_scale);
  return line + "\n";
}

std::string report_text(const InspectReport& report) {
  std::string text = fmt::format("file      {}\nformat    {}\nbytes     {}\n", report.file.string(),
                                 report.format, report.file_bytes);
  if (report.config) {
    text += fmt::format("form      {}\nconfig\n", form_name(report.form));
    const ordered_json config = config_json(*report.config);
    for (const auto& [key, value] : config.items())
      text += fmt::format("  {:<24} {}\n", key, value.dump());
  }
  std::size_t name_width = 0;
  for (const TensorReport& t : report.tensors)
    name_width = std::clamp(printable(t.name).size(), name_width, kMaxNameWidth);
  text += fmt::format("tensors   {}\n", report.tensors.size());
  for (const TensorReport& t : report.tensors) text += "  " + tensor_line(t, name_width);
  text += fmt::format("warnings  {}\n", report.warnings.size());
  for (const std::string& warning : report.warnings) text += "  " + warning + "\n";
  return text;
}

// A model in another format, or nothing where `path` is a safetensors file that inspect_file() shows
// better: one of ours, one that is damaged, one of a model that we do not compute.
std::unique_ptr<ModelReader> open_foreign(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool single = !std::filesystem::is_directory(path, ignored)
                          ? path.extension() != ".gguf"
                          : std::filesystem::exists(path / "model.safetensors", ignored);
  try {
    auto reader = open_model(path);
    return reader->is_native() ? nullptr : std::move(reader);
  } catch (const Error&) {
    if (!single) throw;
    return nullptr;
  }
}

}  // namespace

void add_inspect_command(CLI::App& program, AppContext&) {
  struct Arguments {
    std::string path;
    bool json = false;
  };
  CLI::App* command =
      program.add_subcommand("inspect", "Show a model file: config, every tensor, warnings");
  auto arguments = std::make_shared<Arguments>();
  command
      ->add_option("PATH", arguments->path,
                   "A run, checkpoint or packed folder, a .safetensors file, or what import reads")
      ->required();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback([arguments] {
    const auto foreign = open_foreign(arguments->path);
    const InspectReport report = foreign ? inspect_model(*foreign) : inspect_file(arguments->path);
    if (arguments->json) return write_json_line(report_json(report));
    write_stdout(report_text(report));
  });
}

}  // namespace bitnet
