// SPDX-License-Identifier: MIT
#include "core/convert/hugging_face_export.h"

#include <cmath>

#include "core/base/error.h"
#include "core/convert/gguf_export.h"
#include "core/convert/verify.h"
#include "tests/convert/hugging_face_files.h"
#include "tests/support/catch.h"
#include "tests/support/contains.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

using namespace bitnet;
using nlohmann::json;
using test::contains;
namespace fs = std::filesystem;

namespace {

struct Workshop {
  test::TemporaryFolder folder;
  std::unique_ptr<Backend> backend = make_cpu_backend(1);

  // A trained-like model in `name`.
  SharedReader latent(const ModelConfig& config, const std::string& name = "latent") {
    test::TinyModel model(*backend, config, 5);
    save_latent(model, folder / name);
    return open_model(folder / name);
  }
  SharedReader packed(const ModelConfig& config) {
    test::TinyModel model(*backend, config, 5);
    save_packed(model, folder / "packed", FloatDtype::f32, false);
    return open_model(folder / "packed");
  }

  VerifyReport report;
  // Exports as the command does, verified.
  SharedReader exported(const SharedReader& source, const HuggingFaceOptions& options,
                        const std::string& name = "out", bool force = false) {
    const SharedReader form = hugging_face_form(source, options);
    FolderOptions folder_options{.force = force, .progress = {}, .verify = {}};
    folder_options.verify = [&](const fs::path& written) {
      report = verify_conversion(*backend, source, form, open_hugging_face(written));
    };
    export_hugging_face(*form, folder / name, options, folder_options);
    return open_model(folder / name);
  }
  json config_of(const std::string& name = "out") {
    return json::parse(read_text_file(folder / (name + "/config.json")));
  }
};

std::string usage_message(const std::function<void()>& act) {
  try {
    act();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("an exported model computes its source's logits bit for bit") {
  const std::string profile = GENERATE("bitnet", "bitnet-relu2", "llama");
  const bool from_packed = GENERATE(false, true);
  Workshop w;
  const ModelConfig config = test::small_model_config(profile);
  const SharedReader source = from_packed ? w.packed(config) : w.latent(config);
  const SharedReader written = w.exported(source, {});
  CHECK(w.report.logits.different == 0);
  CHECK(w.report.per_byte);
  CHECK(w.report.source_bits == w.report.written_bits);
  CHECK(w.report.source_bits > 1);
  CHECK(w.report.rounded == 0);
  CHECK(written->form() == WeightForm::packed);
  CHECK(written->config().profile == profile);

  const json read = w.config_of();
  CHECK(read["model_type"] == (profile == "llama" ? "llama" : "bitnet"));
  CHECK(read["architectures"][0] ==
        (profile == "llama" ? "LlamaForCausalLM" : "BitNetForCausalLM"));
  CHECK(read["tie_word_embeddings"] == true);
  CHECK(read["quantization_config"]["linear_class"] == "autobitlinear");
  CHECK(read["quantization_config"]["quantization_mode"] == "offline");
  CHECK_FALSE(read.contains("gated_mlp"));
  CHECK_FALSE(read.contains("linear"));
  CHECK(read["eos_token_id"] == 0);
  for (const char* name : {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json"})
    CHECK(fs::exists(w.folder / ("out/" + std::string(name))));
  const SafetensorsFile file(w.folder / "out/model.safetensors");
  CHECK(file.metadata().at("format") == "pt");
  CHECK_FALSE(file.metadata().contains("bitnet_config"));
}

TEST_CASE(
    "codes and scales are never quantised again: packed, exported, imported, the same bytes") {
  Workshop w;
  const SharedReader packed = w.packed(test::small_model_config("bitnet-relu2"));
  const SharedReader exported = w.exported(packed, {});
  write_native(*exported, w.folder / "back", {});
  const SafetensorsFile before(w.folder / "packed/model.safetensors"),
      after(w.folder / "back/model.safetensors");
  REQUIRE(before.entries().size() == after.entries().size());
  for (const auto& entry : before.entries()) {
    CAPTURE(entry.name);
    REQUIRE(after.find(entry.name) != nullptr);
    CHECK(after.find(entry.name)->dtype == entry.dtype);
    CHECK(std::ranges::equal(after.find(entry.name)->bytes, entry.bytes));
  }
}

TEST_CASE("codes, scales and floats survive the way through every format and back") {
  Workshop w;
  test::HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("bitnet");
  files.config["quantization_config"] = {{"quant_method", "bitnet"},
                                         {"linear_class", "autobitlinear"}};
  std::vector<float> scales;
  for (int i = 0; i < 14; ++i) scales.push_back(0.5f + 0.0625f * static_cast<float>(i));
  ModelConfig config = test::small_model_config("bitnet-relu2");
  files.config["hidden_size"] = config.hidden_size = 128;  // i2_s stores blocks of 128
  test::add_random_tensors(files, config, WeightForm::packed, "BF16", "BF16", scales);
  files.write(w.folder / "in");
  write_native(*open_model(w.folder / "in"), w.folder / "native", {});
  GgufExportOptions options;
  options.type = GgufType::i2_s;
  export_gguf(*open_model(w.folder / "native"), w.folder / "m.gguf", options);
  write_native(*open_model(w.folder / "m.gguf"), w.folder / "again", {});
  const SharedReader last = w.exported(open_model(w.folder / "again"), {});
  const SharedReader first = open_model(w.folder / "in");
  for (const ExpectedTensor& tensor : expected_tensors(first->config(), WeightForm::packed)) {
    CAPTURE(tensor.name);
    const std::int64_t elements = tensor.elements();
    if (tensor.packed) {
      std::vector<std::uint8_t> a(static_cast<std::size_t>(elements)), b(a.size());
      first->read_packed(tensor.name, a);
      last->read_packed(tensor.name, b);
      CHECK(a == b);
    } else {
      CHECK(test::read_floats(*first, tensor.name, elements) ==
            test::read_floats(*last, tensor.name, elements));
    }
  }
}

TEST_CASE("scales that divide survive the way through both formats") {
  Workshop w;
  test::HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("llama");
  files.config["quantization_config"] = {{"quant_method", "bitnet"}};
  std::vector<float> divisors;
  for (int i = 0; i < 14; ++i) divisors.push_back(1.0f + 0.0625f * static_cast<float>(i));
  test::add_random_tensors(files, test::small_model_config("llama"), WeightForm::packed, "BF16",
                           "BF16", divisors);
  files.write(w.folder / "in");
  const SharedReader source = open_model(w.folder / "in");
  w.exported(source, {});
  CHECK(w.report.logits.different == 0);
  // Their reciprocals are no bf16: a loader that rounds everything to bf16 would change them.
  CHECK(w.config_of()["torch_dtype"] == "float32");
  const SafetensorsFile file(w.folder / "out/model.safetensors");
  CHECK(file.find("model.layers.0.mlp.up_proj.weight_scale")->dtype == "F32");
  CHECK(file.find("model.embed_tokens.weight")->dtype == "BF16");

  files.config["quantization_config"]["linear_class"] = "autobitlinear";
  files.write(w.folder / "multiply");
  w.exported(open_model(w.folder / "multiply"), {}, "bf16");
  CHECK(w.config_of("bf16")["torch_dtype"] == "bfloat16");
  CHECK(SafetensorsFile(w.folder / "bf16/model.safetensors")
            .find("model.layers.0.mlp.up_proj.weight_scale")
            ->dtype == "BF16");
}

TEST_CASE("masters are the latent weights in bf16, quantised online") {
  Workshop w;
  const SharedReader source = w.latent(test::small_model_config("bitnet"));
  const SharedReader written = w.exported(source, {.target = HuggingFaceTarget::masters});
  CHECK(w.config_of()["quantization_config"]["quantization_mode"] == "online");
  CHECK(w.config_of()["torch_dtype"] == "bfloat16");
  CHECK(written->form() == WeightForm::latent);
  CHECK(w.report.rounded > 0);
  CHECK(w.report.largest_rounding <= 0x1p-8);  // half a step of 8 bits of precision
  const std::string name = "model.layers.0.self_attn.k_proj.weight";
  const std::vector<float> before = test::read_floats(*source, name, 32 * 64),
                           after = test::read_floats(*written, name, 32 * 64);
  bool rounded = true;
  for (std::size_t i = 0; i < before.size(); ++i)
    rounded = rounded && after[i] == from_bf16(to_bf16(before[i]));
  CHECK(rounded);
  // What is bf16 already comes back as it was.
  w.exported(written, {.target = HuggingFaceTarget::masters}, "again");
  CHECK(w.report.rounded == 0);
  CHECK(w.report.logits.different == 0);
  CHECK(read_text_file(w.folder / "out/config.json") ==
        read_text_file(w.folder / "again/config.json"));
}

TEST_CASE("a float model is exported as it is, or rounded to bf16 when asked") {
  Workshop w;
  ModelConfig config = test::small_model_config(GENERATE("llama", "bitnet"));
  config.linear = "float";
  config.tie_word_embeddings = false;
  const SharedReader source = w.latent(config);
  w.exported(source, {});
  CHECK(w.report.logits.different == 0);
  CHECK_FALSE(w.config_of().contains("quantization_config"));
  w.exported(source, {.float_bf16 = true}, "bf16");
  CHECK(w.report.rounded > 0);
  CHECK(w.config_of("bf16")["torch_dtype"] == "bfloat16");
  contains(usage_message([&] { w.exported(source, {.target = HuggingFaceTarget::masters}, "m"); }),
           "is a float model");
  CHECK_FALSE(fs::exists(w.folder / "m"));
}

TEST_CASE("weight-only quantisation goes out as floats and comes back as codes") {
  const std::int64_t group = GENERATE(0, 64);
  const bool from_packed = GENERATE(false, true);
  Workshop w;
  ModelConfig config = test::small_model_config("llama");
  config.activation_bits = 0;
  config.weight_group_size = group;
  const SharedReader source = from_packed ? w.packed(config) : w.latent(config);
  const SharedReader written = w.exported(source, {});
  CHECK(w.report.logits.different == 0);
  CHECK(w.report.rounded == 0);
  CHECK(written->description() == "Hugging Face folder, floats that are ternary");
  CHECK(written->config().weight_group_size == group);
  const SharedReader packed = from_packed ? source : packed_view(source);
  for (const TensorSpec& spec : list_tensors(config)) {
    if (spec.role != TensorRole::projection) continue;
    std::vector<std::uint8_t> a(static_cast<std::size_t>(spec.shape.elements() / 4)), b(a.size());
    packed->read_packed(spec.name, a);
    written->read_packed(spec.name, b);
    CHECK(a == b);
  }
}

TEST_CASE("many shards hold the same model") {
  Workshop w;
  const SharedReader source = w.latent(test::small_model_config("bitnet"));
  const SharedReader written = w.exported(source, {.max_shard_bytes = 20'000});
  CHECK(w.report.logits.different == 0);
  CHECK(fs::exists(w.folder / "out/model.safetensors.index.json"));
  contains(written->description(), " files");
}

TEST_CASE(
    "what transformers would compute differently is refused, or written by force and marked") {
  struct Case {
    const char* profile;
    std::function<void(ModelConfig&)> change;
    HuggingFaceTarget target;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"bitnet-b1", [](ModelConfig&) {}, HuggingFaceTarget::packed, "norm = layernorm"},
      {"bitnet-faq", [](ModelConfig&) {}, HuggingFaceTarget::packed, "norm_gain = false"},
      {"bitnet", [](ModelConfig& c) { c.weight_group_size = 64; }, HuggingFaceTarget::packed,
       "weight_group_size = 64"},
      {"bitnet", [](ModelConfig& c) { c.weight_scale = "absmedian"; }, HuggingFaceTarget::masters,
       "weight_scale = absmedian"},
      {"bitnet", [](ModelConfig& c) { c.linear = "b1"; }, HuggingFaceTarget::masters,
       "linear = b1"},
      {"bitnet", [](ModelConfig& c) { c.activation_bits = 0; }, HuggingFaceTarget::masters,
       "activation_bits = 0"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.message);
    Workshop w;
    ModelConfig config = test::small_model_config(c.profile);
    c.change(config);
    const SharedReader source = w.latent(config);
    contains(usage_message([&] { w.exported(source, {.target = c.target}); }), c.message);
    CHECK_FALSE(fs::exists(w.folder / "out"));
    w.exported(source, {.target = c.target, .allow_differences = true});
    CHECK(w.report.tensors > 0);  // verified: our keys in config.json say what it is
  }
  // Codes are codes, however they were found.
  Workshop w;
  ModelConfig config = test::small_model_config("bitnet");
  config.linear = GENERATE("b1", "b158");
  if (config.linear == "b158") config.weight_scale = "absmedian";
  w.exported(w.latent(config), {});
  CHECK(w.report.logits.different == 0);
  contains(usage_message([&] {
             w.exported(w.packed(test::small_model_config("bitnet")),
                        {.target = HuggingFaceTarget::masters}, "m");
           }),
           "has no latent weights");
}

TEST_CASE("an export replaces only what a conversion wrote") {
  Workshop w;
  const SharedReader source = w.latent(test::small_model_config("bitnet"));
  w.exported(source, {.target = HuggingFaceTarget::masters});
  CHECK_THROWS_AS(w.exported(source, {}), Error);
  w.exported(source, {}, "out", true);
  CHECK_THROWS_AS(w.exported(source, {}, "latent", true), Error);  // a training's weights
  CHECK(open_model(w.folder / "latent")->form() == WeightForm::latent);
}
