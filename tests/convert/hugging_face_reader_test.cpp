// SPDX-License-Identifier: MIT
#include <cmath>

#include "core/base/error.h"
#include "core/convert/model_reader.h"
#include "tests/convert/hugging_face_files.h"
#include "tests/support/catch.h"
#include "tests/support/contains.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

using namespace bitnet;
using nlohmann::ordered_json;
using test::contains;
using test::HuggingFaceFiles;
namespace fs = std::filesystem;

namespace {

std::vector<float> logits_at(const fs::path& path) {
  const auto backend = make_cpu_backend(1);
  const auto model = load_model(*backend, *open_model(path));
  return test::logits_of(*model, test::kTextTokens, 1);
}

// One scale for each of the 14 projections, exact in bf16.
std::vector<float> bf16_scales(double smallest) {
  std::vector<float> scales;
  for (const double number : test::random_numbers(77, 14, 0.3))
    scales.push_back(from_bf16(to_bf16(static_cast<float>(smallest + std::abs(number)))));
  return scales;
}

HuggingFaceFiles packed_files(const std::string& model_type, const ordered_json& linear_class,
                              const std::string& scale_dtype, const std::vector<float>& scales) {
  HuggingFaceFiles files;
  files.config = test::small_hugging_face_config(model_type);
  files.config["quantization_config"] = {{"quant_method", "bitnet"},
                                         {"modules_to_not_convert", {"lm_head"}}};
  if (!linear_class.is_null()) files.config["quantization_config"]["linear_class"] = linear_class;
  const std::string profile = model_type == "bitnet" ? "bitnet-relu2" : "llama";
  test::add_random_tensors(files, test::small_model_config(profile), WeightForm::packed, "BF16",
                           scale_dtype, scales);
  return files;
}

HuggingFaceFiles float_files(const std::string& dtype = "F32") {
  HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("llama");
  ModelConfig config = test::small_model_config("llama");
  config.linear = "float";
  test::add_random_tensors(files, config, WeightForm::latent, dtype);
  return files;
}

// Why a folder is refused.
std::string refusal(const HuggingFaceFiles& files) {
  const test::TemporaryFolder folder;
  files.write(folder.path());
  try {
    open_model(folder.path());
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("weight_scale divides unless linear_class is autobitlinear, to the bit") {
  const std::string type = GENERATE("bitnet", "llama");
  const test::TemporaryFolder folder;
  const std::vector<float> divisors = bf16_scales(0.5);
  std::vector<float> multipliers;
  for (const float divisor : divisors) multipliers.push_back(1.0f / divisor);
  packed_files(type, "bitlinear", "BF16", divisors).write(folder / "divide");
  packed_files(type, nullptr, "F32", divisors).write(folder / "absent");
  packed_files(type, "autobitlinear", "F32", multipliers).write(folder / "multiply");
  packed_files(type, "autobitlinear", "BF16", divisors).write(folder / "other");

  const std::vector<float> logits = logits_at(folder / "multiply");
  CHECK(logits_at(folder / "divide") == logits);
  CHECK(logits_at(folder / "absent") == logits);
  CHECK_FALSE(logits_at(folder / "other") == logits);
  CHECK(open_model(folder / "divide")->description() ==
        "Hugging Face folder, packed, weight_scale divides");
}

TEST_CASE("masters that are quantised online are latent weights, in three float formats") {
  const std::string dtype = GENERATE("F32", "BF16", "F16");
  const test::TemporaryFolder folder;
  HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("bitnet");
  files.config["quantization_config"] = {{"quant_method", "bitnet"},
                                         {"linear_class", "autobitlinear"},
                                         {"quantization_mode", "online"}};
  const ModelConfig config = test::small_model_config("bitnet-relu2");
  test::add_random_tensors(files, config, WeightForm::latent, dtype);
  files.write(folder.path());

  const auto reader = open_model(folder.path());
  CHECK(reader->form() == WeightForm::latent);
  CHECK(reader->config().linear == "b158");
  CHECK(reader->config().profile == "bitnet-relu2");
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  CHECK(reader->float_dtype(name) == (dtype == "BF16" ? FloatDtype::bf16 : FloatDtype::f32));
  const std::vector<float> values = test::read_floats(*reader, name, 128 * 64);
  CHECK(test::encode_floats(values, dtype) == files.tensors.at(name).bytes);
  const auto backend = make_cpu_backend(1);
  const auto model = load_model(*backend, *reader);
  CHECK(test::floats_of(*backend, model->parameters().at(name).value) == values);
}

TEST_CASE("1bitLLM's names and keys mean sub-norms and quantised projections") {
  const test::TemporaryFolder folder;
  HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("llama");
  files.config["architectures"] = {"BitnetForCausalLM"};
  files.config["weight_bits"] = 1;
  files.config["input_bits"] = 8;
  test::add_random_tensors(files, test::small_model_config("bitnet"), WeightForm::latent, "F16");
  HuggingFaceFiles ours = files;
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    for (const auto& [name, theirs] :
         {std::pair("self_attn.attn_sub_norm.weight", "self_attn.inner_attn_ln.weight"),
          std::pair("mlp.ffn_sub_norm.weight", "mlp.ffn_layernorm.weight")}) {
      auto node = files.tensors.extract(prefix + name);
      node.key() = prefix + theirs;
      files.tensors.insert(std::move(node));
    }
    files.set_floats(prefix + "self_attn.rotary_emb.inv_freq", {8}, std::vector<float>(8, 1),
                     "F32");
  }
  files.write(folder / "theirs");
  ours.config = test::small_hugging_face_config("bitnet");
  ours.config["hidden_act"] = "silu";
  ours.config["quantization_config"] = {{"quant_method", "bitnet"},
                                        {"linear_class", "autobitlinear"},
                                        {"quantization_mode", "online"}};
  ours.write(folder / "ours");
  CHECK(open_model(folder / "theirs")->config().profile == "bitnet");
  CHECK(logits_at(folder / "theirs") == logits_at(folder / "ours"));
  files.config["weight_bits"] = 2;
  contains(refusal(files), "weight_bits = 2");
}

TEST_CASE("shape keys of newer versions are understood, absent ones have the class's defaults") {
  HuggingFaceFiles files = float_files();
  files.config["head_dim"] = 32;
  files.config.erase("rope_theta");
  files.config.erase("torch_dtype");
  files.config["dtype"] = "float32";
  files.config["rope_parameters"] = {{"rope_theta", 500000.0}, {"rope_type", "default"}};
  files.config.erase("num_key_value_heads");
  files.config.erase("rms_norm_eps");
  files.config["hidden_act"] = "swish";
  ModelConfig config = test::small_model_config("llama");
  config.linear = "float";
  config.head_dim = 32;
  config.num_key_value_heads = 4;
  files.tensors.clear();
  test::add_random_tensors(files, config, WeightForm::latent, "F32");
  const test::TemporaryFolder folder;
  files.write(folder.path());
  const ModelConfig read = open_model(folder.path())->config();
  CHECK(read.head_size() == 32);
  CHECK(read.kv_heads() == 4);
  CHECK(read.rope_theta == 500000.0);
  CHECK(read.rms_norm_eps == 1e-6);
  CHECK(read.hidden_act == "silu");
  CHECK(read.linear == "float");

  files.config["rope_theta"] = 10000.0;
  contains(refusal(files), "rope_theta is 10000.0, but rope_parameters.rope_theta is 500000.0");
}

TEST_CASE("a head of its own is there exactly where embeddings are not tied") {
  HuggingFaceFiles files = float_files();
  const test::StoredBytes table = files.tensors.at("model.embed_tokens.weight");
  files.tensors["lm_head.weight"] = table;
  CHECK(refusal(files) == "accepted");  // a tied head that was written too
  files.tensors["lm_head.weight"].bytes[5] ^= 1;
  contains(refusal(files), "tie_word_embeddings is true");
  files.config.erase("tie_word_embeddings");  // false for transformers
  CHECK(refusal(files) == "accepted");
  files.tensors.erase("lm_head.weight");
  contains(refusal(files), "tensor 'lm_head.weight' is missing");
}

TEST_CASE("what we would compute wrongly is refused by name") {
  struct Case {
    const char* key;
    ordered_json value;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"model_type", "qwen3", "model_type is 'qwen3'"},
      {"model_type", nullptr, "model_type is absent"},
      {"architectures", {"LlamaForSequenceClassification"}, "'LlamaForSequenceClassification'"},
      {"attention_bias", true, "attention_bias = true"},
      {"mlp_bias", true, "mlp_bias = true"},
      {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}, "rope_scaling.'factor'"},
      {"rope_parameters", {{"rope_type", "llama3"}}, "rope_parameters.'rope_type'"},
      {"partial_rotary_factor", 0.5, "partial_rotary_factor = 0.5"},
      {"sliding_window", 4096, "sliding_window = 4096"},
      {"layer_types", {"full_attention", "sliding_attention"}, "sliding_attention"},
      {"hidden_act", "gelu_new", "hidden_act"},
      {"num_local_experts", 8, "num_local_experts = 8"},
      {"final_logit_softcapping", 30.0, "final_logit_softcapping"},
      {"hidden_size", 100, "hidden_size = 100 must be a multiple of 64"},
      {"quantization_config", {{"quant_method", "gptq"}}, "quant_method is 'gptq'"},
      {"quantization_config", {{"quant_method", "bitnet"}, {"linear_class", "x"}}, "linear_class"},
      {"quantization_config",
       {{"quant_method", "bitnet"}, {"quantization_mode", "x"}},
       "quantization_mode"},
      {"quantization_config", {{"quant_method", "bitnet"}, {"use_rms_norm", true}}, "use_rms_norm"},
      {"quantization_config",
       {{"quant_method", "bitnet"}, {"modules_to_not_convert", {"lm_head", "o_proj"}}},
       "modules_to_not_convert holds 'o_proj'"},
  };
  for (const Case& c : cases) {
    HuggingFaceFiles files = float_files();
    files.config[c.key] = c.value;
    CAPTURE(c.key);
    contains(refusal(files), c.message);
  }
  HuggingFaceFiles files = float_files();
  files.set_floats("model.layers.0.self_attn.q_proj.bias", {64}, std::vector<float>(64), "F32");
  contains(refusal(files), "q_proj.bias': is no part of the model");
  files = float_files();
  files.tensors.erase("model.norm.weight");
  contains(refusal(files), "tensor 'model.norm.weight' is missing");
}

TEST_CASE("packed weights need a configuration, positive scales and codes") {
  const std::vector<float> scales(14, 0.5f);
  HuggingFaceFiles files = packed_files("llama", "autobitlinear", "BF16", scales);
  files.config.erase("quantization_config");
  contains(refusal(files), "no quantization_config");
  for (const float bad : {0.0f, -1.0f, INFINITY, NAN}) {
    files = packed_files("llama", "bitlinear", "F32", scales);
    files.set_floats("model.layers.0.mlp.up_proj.weight_scale", {1}, {bad}, "F32");
    contains(refusal(files), "expected a positive finite number");
  }
  files = packed_files("llama", "bitlinear", "BF16", scales);
  files.set_floats("model.layers.0.mlp.up_proj.weight_scale", {}, {0.5f}, "BF16");  // a scalar
  CHECK(refusal(files) == "accepted");

  const std::string name = "model.layers.0.mlp.up_proj.weight";
  files.tensors.at(name).bytes[7] |= 3;
  const test::TemporaryFolder folder;
  files.write(folder.path());
  const auto reader = open_model(folder.path());
  std::vector<std::uint8_t> packed(128 / 4 * 64);
  CHECK_THROWS_AS(reader->read_packed(name, packed), FormatError);
}

TEST_CASE("floats under a quantised configuration are latent weights, and said to be") {
  HuggingFaceFiles files = float_files();
  files.config["is_bitnet_config"] = true;
  const test::TemporaryFolder folder;
  files.write(folder.path());
  const auto reader = open_model(folder.path());
  CHECK(reader->config().linear == "b158");
  CHECK(reader->config().activation_bits == 8);
  CHECK(reader->form() == WeightForm::latent);
  REQUIRE(reader->warnings().size() == 1);
  contains(reader->warnings()[0], "taken for latent weights");
}

TEST_CASE("a vocabulary without a tokenizer is not taken for bytes in silence") {
  HuggingFaceFiles files = float_files();
  const test::TemporaryFolder folder;
  files.write(folder / "bytes");
  CHECK(open_model(folder / "bytes")->warnings().empty());
  ModelConfig config = test::small_model_config("llama");
  config.linear = "float";
  files.config["vocab_size"] = config.vocab_size = 300;
  files.tensors.clear();
  test::add_random_tensors(files, config, WeightForm::latent, "F32");
  files.write(folder / "words");
  const auto reader = open_model(folder / "words");
  REQUIRE(reader->warnings().size() == 1);
  contains(reader->warnings()[0], "the model has 300 token ids");
}

TEST_CASE("a float file that holds a ternary model keeps its codes and its several scales") {
  const bool by_columns = GENERATE(false, true);
  HuggingFaceFiles files = float_files("F16");
  for (const TensorSpec& spec : list_tensors(test::small_model_config("llama"))) {
    if (spec.role != TensorRole::projection) continue;
    const std::int64_t rows = spec.shape[0], columns = spec.shape[1];
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const bool second = by_columns ? i % columns >= 64 : i / columns >= rows / 2;
      values[static_cast<std::size_t>(i)] =
          (second ? 0.0302734375f : 0.021240234375f) * static_cast<float>((7 * i + i / 5) % 3 - 1);
    }
    files.set_floats(spec.name, {rows, columns}, values, "F16");
  }
  const test::TemporaryFolder folder;
  files.write(folder.path());
  const auto reader = open_model(folder.path());
  CHECK(reader->form() == WeightForm::packed);
  CHECK(reader->config().activation_bits == 0);
  // Matrices of 64 inputs have one group of columns a row, so both cuts fit 64.
  CHECK(reader->config().weight_group_size == 64);
  const std::string name = "model.layers.1.mlp.down_proj.weight";  // [64, 128]
  const auto dense = dense_view(open_model(folder.path()));
  CHECK(test::encode_floats(test::read_floats(*dense, name, 64 * 128), "F16") ==
        files.tensors.at(name).bytes);
  const auto backend = make_cpu_backend(1);
  const auto floats = load_model(*backend, *dense);
  CHECK(logits_at(folder.path()) == test::logits_of(*floats, test::kTextTokens, 1));

  files.tensors.at(name).bytes[1000] ^= 1;  // one weight is another multiple
  files.write(folder / "near");
  const auto near = open_model(folder / "near");
  CHECK(near->config().linear == "float");
  CHECK(near->form() == WeightForm::latent);
}
