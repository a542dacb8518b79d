// SPDX-License-Identifier: MIT
#include "core/base/error.h"
#include "core/convert/inspect_model.h"
#include "core/convert/native_writer.h"
#include "core/convert/verify.h"
#include "tests/convert/hugging_face_files.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

using namespace bitnet;
using test::HuggingFaceFiles;
namespace fs = std::filesystem;

namespace {

HuggingFaceFiles masters() {
  HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("bitnet");
  files.config["quantization_config"] = {{"quant_method", "bitnet"},
                                         {"linear_class", "autobitlinear"},
                                         {"quantization_mode", "online"}};
  test::add_random_tensors(files, test::small_model_config("bitnet-relu2"), WeightForm::latent,
                           "BF16");
  return files;
}

HuggingFaceFiles float_llama() {
  HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("llama");
  ModelConfig config = test::small_model_config("llama");
  config.linear = "float";
  test::add_random_tensors(files, config, WeightForm::latent, "F16");
  return files;
}

}  // namespace

TEST_CASE("an imported model is one of ours, with bf16 kept and its tokenizer beside it") {
  const test::TemporaryFolder folder;
  const HuggingFaceFiles files = masters();
  files.write(folder / "in");
  const auto backend = make_cpu_backend(1);
  const SharedReader source = open_model(folder / "in");
  VerifyReport verified;
  FolderOptions options;
  std::size_t last_progress = 0;
  options.progress = [&](std::size_t done, std::size_t) { last_progress = done; };
  options.verify = [&](const fs::path& written) {
    verified = verify_conversion(*backend, source, source, open_native(written));
    CHECK_FALSE(fs::exists(folder / "out"));
  };
  const ConversionReport report = write_native(*source, folder / "out", options);
  CHECK(verified.logits.different == 0);
  CHECK(verified.tensors == report.tensors);
  CHECK(last_progress == static_cast<std::size_t>(report.tensors));
  CHECK(report.warnings.empty());

  const SafetensorsFile file(folder / "out/model.safetensors");
  CHECK(file.metadata().contains("bitnet_config"));
  REQUIRE(file.entries().size() == files.tensors.size());
  for (const auto& [name, tensor] : files.tensors) {
    CHECK(file.find(name)->dtype == "BF16");
    CHECK(std::ranges::equal(file.find(name)->bytes, tensor.bytes));
  }
  const auto reader = open_model(folder / "out");
  CHECK(reader->is_native());
  CHECK(reader->config() == resolved(source->config()));
  CHECK(reader->tokenizer() == byte_tokenizer());
  CHECK(fs::exists(folder / "out/tokenizer.json"));
}

TEST_CASE("the projections of a float model become latent weights of BitLinears") {
  const std::string linear = GENERATE("b158", "b1");
  const test::TemporaryFolder folder;
  float_llama().write(folder / "in");
  const SharedReader source = open_model(folder / "in"), view = bit_linear_view(source, linear);
  write_native(*view, folder / "out", {});
  const auto reader = open_model(folder / "out");
  CHECK(reader->config().linear == linear);
  CHECK(reader->config().profile == "llama");
  CHECK(reader->form() == WeightForm::latent);
  const std::string name = "model.layers.0.mlp.gate_proj.weight";
  CHECK(test::read_floats(*reader, name, 128 * 64) == test::read_floats(*source, name, 128 * 64));
  const auto backend = make_cpu_backend(1);
  const auto model = load_model(*backend, *reader);
  CHECK(static_cast<bool>(model->parameters().at(name).packed));
  CHECK_THROWS_AS(bit_linear_view(view, "b1"), UsageError);
}

TEST_CASE("tensors that look wrong are reported, not refused") {
  const test::TemporaryFolder folder;
  HuggingFaceFiles files = masters();
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  files.set_floats(name, {128, 64}, std::vector<float>(128 * 64), "BF16");
  files.write(folder / "in");
  const auto source = open_model(folder / "in");
  const ConversionReport report = write_native(*source, folder / "out", {});
  REQUIRE(report.warnings.size() == 1);
  CHECK(report.warnings[0] == "tensor '" + name + "': all values are 0");

  const InspectReport inspected = inspect_model(*source);
  CHECK(inspected.format == "Hugging Face folder, latent weights");
  CHECK(inspected.tensors.size() == files.tensors.size());
  CHECK(std::ranges::find(inspected.warnings, report.warnings[0]) != inspected.warnings.end());
  CHECK(inspected.file_bytes == fs::file_size(folder / "in/model.safetensors"));
}

TEST_CASE("what a path is follows from what is there") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  test::TinyModel model(*backend, test::small_model_config("bitnet"), 5);
  save_latent(model, folder / "native");
  CHECK(open_model(folder / "native")->is_native());
  CHECK(open_model(folder / "native/model.safetensors")->is_native());
  save_latent(model, folder / "run/checkpoint-3");
  write_file(folder / "run/checkpoint-3/trainer_state.json", "{}");
  write_file(folder / "run/checkpoint-3/COMPLETE", "3\n");
  write_file(folder / "run/config.json", "{}");
  CHECK(open_model(folder / "run")->is_native());
  CHECK(open_model(folder / "run")->path() == folder / "run/checkpoint-3/model.safetensors");

  masters().write(folder / "hf");
  CHECK_FALSE(open_model(folder / "hf")->is_native());
  CHECK(open_model(folder / "hf/model.safetensors")->path() == folder / "hf");
  CHECK_THROWS_WITH(open_model(folder / "none"), Catch::Contains("does not exist"));
  make_folders(folder / "empty");
  CHECK_THROWS_WITH(open_model(folder / "empty"), Catch::Contains("holds no model"));
  float_llama().write_config(folder / "config");
  CHECK_THROWS_WITH(open_model(folder / "config"), Catch::Contains("model.safetensors.index.json"));
  write_file(folder / "x.gguf", "GGUF\x03");
  CHECK_THROWS_AS(open_model(folder / "x.gguf"), FormatError);
}
