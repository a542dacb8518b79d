// SPDX-License-Identifier: MIT
#include "core/checkpoint/model_file.h"

#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/checkpoint/run_folder.h"
#include "tests/checkpoint/small_model.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
namespace fs = std::filesystem;

namespace {

// An Error of another kind than `Kind` escapes and fails the test.
template <typename Kind>
std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Kind& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return true;
}

// The tensors of a file, to be changed and written again.
struct EditableFile {
  explicit EditableFile(const fs::path& source) : path(source) {
    const SafetensorsFile file(path);
    metadata = file.metadata();
    for (const auto& entry : file.entries()) {
      bytes.emplace_back(entry.bytes.begin(), entry.bytes.end());
      tensors.push_back({.name = entry.name, .dtype = entry.dtype, .shape = entry.shape});
    }
  }
  std::size_t index_of(const std::string& name) const {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name == name) return i;
    }
    throw std::runtime_error("no tensor " + name);
  }
  void remove(const std::string& name) {
    const auto i = static_cast<std::ptrdiff_t>(index_of(name));
    tensors.erase(tensors.begin() + i);
    bytes.erase(bytes.begin() + i);
  }
  void write() {
    for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].bytes = bytes[i].data();
    write_safetensors(path, tensors, metadata);
  }
  fs::path path;
  std::map<std::string, std::string> metadata;
  std::vector<TensorToWrite> tensors;
  std::vector<std::vector<std::uint8_t>> bytes;
};

const std::vector<std::int32_t> kTokens = {1, 2, 3, 0, 2, 1};
const std::string kQuery = "model.layers.0.self_attn.q_proj.weight";

}  // namespace

TEST_CASE("a saved model loads with the same configuration, weights and logits") {
  const std::string linear = GENERATE("b158", "b1", "float");
  const std::int64_t group = GENERATE(0, 64);
  const bool tied = GENERATE(true, false);
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  ModelConfig config = test::small_config(linear);
  config.weight_group_size = group;
  config.tie_word_embeddings = tied;
  const auto model = test::make_small_model(*backend, config);
  save_latent(*model, folder.path(), {{"step", "3"}});

  const auto loaded = load_model(*backend, folder.path());
  CHECK(loaded->config() == resolved(config));
  CHECK(loaded->parameters().form() == WeightForm::latent);
  for (Parameter& p : loaded->parameters().all()) {
    CHECK(test::floats_of(*backend, p.value) ==
          test::floats_of(*backend, model->parameters().at(p.spec.name).value));
  }
  CHECK(test::logits_of(*loaded, kTokens, 2) == test::logits_of(*model, kTokens, 2));
  const SafetensorsFile file(folder / "model.safetensors");
  CHECK(file.metadata().at("step") == "3");
  CHECK(nlohmann::json::parse(file.metadata().at("bitnet_config")) ==
        nlohmann::json::parse(read_text_file(folder / "config.json")));
}

TEST_CASE("a model is found by run, checkpoint, folder, link and file") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  RunFolder run = RunFolder::create(folder / "runs" / "a", false);
  write_file(run.config_file(), "{}");
  for (const int step : {5, 10}) {
    save_latent(*model, run.begin_checkpoint(step));
    run.complete_checkpoint(step);
  }
  point_to(folder / "runs" / "latest", run.path());
  const fs::path five = run.checkpoint_folder(5), ten = run.checkpoint_folder(10);
  CHECK(find_model_file(run.path()) == ten / "model.safetensors");
  CHECK(fs::equivalent(find_model_file(folder / "runs" / "latest"), ten / "model.safetensors"));
  CHECK(find_model_file(five) == five / "model.safetensors");
  CHECK(find_model_file(five / "model.safetensors") == five / "model.safetensors");
  CHECK(fs::equivalent(find_model_file(run.path() / "latest"), ten / "model.safetensors"));
  CHECK(resolve_model(run.path()).folder == ten);

  fs::remove(run.path() / "latest");
  CHECK(find_model_file(run.path()) == ten / "model.safetensors");
  write_file(run.path() / "latest", "checkpoint-5\n");
  CHECK(find_model_file(run.path()) == five / "model.safetensors");
  CHECK(find_model_file(run.path() / "latest") == five / "model.safetensors");
  fs::remove(folder / "runs" / "latest");
  write_file(folder / "runs" / "latest", "a\n");
  CHECK(find_model_file(folder / "runs" / "latest") == five / "model.safetensors");
}

TEST_CASE("a path without a model says what was looked for") {
  const test::TemporaryFolder folder;
  contains(message_of<Error>([&] { resolve_model(folder / "none"); }),
           "none: does not exist; expected a run folder");
  contains(message_of<Error>([&] { resolve_model(folder.path()); }),
           "holds no model; looked for model.safetensors, for 'latest'");
  fs::create_symlink("gone", folder / "latest");
  contains(message_of<Error>([&] { resolve_model(folder / "latest"); }), "which does not exist");
  write_file(folder / "model.safetensors.index.json", "{}");
  contains(message_of<Error>([&] { resolve_model(folder.path()); }), "several files");
  write_file(folder / "text", "not a model\n");
  contains(message_of<FormatError>([&] { resolve_model(folder / "text"); }), "not a safetensors");

  make_folders(folder / "tmp-checkpoint-3");
  write_file(folder / "tmp-checkpoint-3" / "model.safetensors", "x");
  contains(message_of<Error>([&] { resolve_model(folder / "tmp-checkpoint-3"); }),
           "incomplete checkpoint");
  make_folders(folder / "checkpoint-3");
  write_file(folder / "checkpoint-3" / "model.safetensors", "x");
  write_file(folder / "checkpoint-3" / "trainer_state.json", "{}");
  contains(message_of<Error>([&] { resolve_model(folder / "checkpoint-3"); }),
           "incomplete checkpoint");
}

TEST_CASE("a single file is a model; without metadata, config.json beside it serves") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_latent(*model, folder.path());
  const fs::path alone = folder / "alone" / "any.name";
  make_folders(folder / "alone");
  fs::copy_file(folder / "model.safetensors", alone);
  CHECK(load_model(*backend, alone)->config() == resolved(model->config()));

  EditableFile file(alone);
  file.metadata.erase("bitnet_config");
  file.write();
  contains(message_of<FormatError>([&] { resolve_model(alone); }), "the configuration is missing");
  fs::copy_file(folder / "config.json", folder / "alone" / "config.json");
  CHECK(resolve_model(alone).config == resolved(model->config()));
}

TEST_CASE("bf16 weights are widened exactly") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_latent(*model, folder.path());
  EditableFile file(folder / "model.safetensors");
  const std::size_t query = file.index_of(kQuery);
  file.tensors[query].dtype = "BF16";
  std::vector<std::uint8_t> halves;  // the weights are multiples of 1/32: exact in bf16
  for (std::size_t i = 0; i < file.bytes[query].size(); i += 4) {
    halves.push_back(file.bytes[query][i + 2]);
    halves.push_back(file.bytes[query][i + 3]);
  }
  file.bytes[query] = halves;
  file.write();
  const auto loaded = load_model(*backend, folder.path());
  CHECK(test::floats_of(*backend, loaded->parameters().at(kQuery).value) ==
        test::floats_of(*backend, model->parameters().at(kQuery).value));
}

TEST_CASE("a file whose tensors are not the model's is refused by tensor") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_latent(*model, folder.path());
  EditableFile file(folder / "model.safetensors");
  const std::size_t query = file.index_of(kQuery);
  const auto refusal = [&] {
    file.write();
    return message_of<FormatError>([&] { load_model(*backend, folder.path()); });
  };
  SECTION("missing") {
    file.remove(kQuery);
    contains(refusal(), "tensor '" + kQuery + "' is missing; expected F32, BF16 or F16 [64, 64]");
  }
  SECTION("unknown") {
    file.tensors.push_back({.name = "surprise", .dtype = "U8", .shape = {1}});
    file.bytes.push_back({0});
    contains(refusal(), "unknown tensor 'surprise'; this file is not the latent model");
  }
  SECTION("shape") {
    file.tensors[query].shape = {32, 128};
    contains(refusal(), "is F32 [32, 128], expected F32, BF16 or F16 [64, 64]");
  }
  SECTION("dtype") {
    file.tensors[query].dtype = "I32";
    contains(refusal(), "is I32 [64, 64], expected F32, BF16 or F16 [64, 64]");
  }
  SECTION("more layers than tensors") {
    auto config = nlohmann::json::parse(file.metadata["bitnet_config"]);
    config["num_hidden_layers"] = 4096;
    file.metadata["bitnet_config"] = config.dump();
    contains(refusal(), "the configuration has 4096 layers, but the file only 13 tensors");
  }
  SECTION("a newer format") {
    file.metadata["bitnet_format"] = "2";
    contains(refusal(), "written in model format '2'; this program reads format 1");
  }
  SECTION("configuration text") {
    file.metadata["bitnet_config"] = "{";
    contains(refusal(), "not valid JSON");
  }
}

TEST_CASE("a damaged packed tensor is refused by place") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", FloatDtype::f32, false);
  EditableFile file(folder / "p" / "model.safetensors");
  const std::size_t query = file.index_of(kQuery), scale = file.index_of(kQuery + "_scale");
  const auto refusal = [&] {
    file.write();
    return message_of<FormatError>([&] { load_model(*backend, folder / "p"); });
  };
  const auto set_scale = [&](float value) {
    std::memcpy(file.bytes[scale].data(), &value, sizeof value);
  };
  SECTION("an impossible code") {
    file.bytes[query][5] = 0x0c;
    const std::uint64_t place = SafetensorsFile(file.path).find(kQuery)->offset + 5;
    contains(refusal(), fmt::format("at byte {}: tensor '{}': a 2-bit value of 3", place, kQuery));
  }
  SECTION("zero scale") {
    set_scale(0);
    contains(refusal(), "scale 0, expected a positive finite number");
  }
  SECTION("negative scale") {
    set_scale(-1);
    contains(refusal(), "scale -1, expected");
  }
  SECTION("infinite scale") {
    set_scale(std::numeric_limits<float>::infinity());
    contains(refusal(), "scale inf, expected");
  }
  SECTION("NaN scale") {
    set_scale(std::numeric_limits<float>::quiet_NaN());
    contains(refusal(), "scale nan, expected");
  }
  SECTION("a reciprocal scale") {
    auto config = nlohmann::json::parse(file.metadata["bitnet_config"]);
    config["quantization_config"].erase("linear_class");
    file.metadata["bitnet_config"] = config.dump();
    contains(refusal(), "expected 'autobitlinear'");
  }
  SECTION("missing scale") {
    file.remove(kQuery + "_scale");
    contains(refusal(), "_scale' is missing");
  }
}

TEST_CASE("parameters are loaded into a transformer of the same function only") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  ModelConfig config = test::small_config("b158", 1);
  const auto model = test::make_small_model(*backend, config);
  save_latent(*model, folder / "latent");
  config.dropout = 0.5;
  config.num_key_value_heads = 1;
  Transformer same(*backend, config, WeightForm::latent);
  load_parameters(folder / "latent", same);
  CHECK(test::logits_of(same, kTokens, 1) == test::logits_of(*model, kTokens, 1));

  config.rope_theta = 20000;
  Transformer other(*backend, config, WeightForm::latent);
  contains(message_of<FormatError>([&] { load_parameters(folder / "latent", other); }),
           "is of another model: its rope_theta is 10000.0, expected 20000.0");
  save_packed(*model, folder / "packed", FloatDtype::f32, false);
  contains(message_of<FormatError>([&] { load_parameters(folder / "packed", same); }),
           "holds packed weights");
}
