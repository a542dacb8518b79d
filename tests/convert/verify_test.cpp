// SPDX-License-Identifier: MIT
#include "core/convert/verify.h"

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/convert/native_writer.h"
#include "core/tokenizer/byte_alphabet.h"
#include "tests/convert/hugging_face_files.h"
#include "tests/support/catch.h"
#include "tests/support/contains.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

using namespace bitnet;
using test::contains;
using test::HuggingFaceFiles;
namespace fs = std::filesystem;

namespace {

// A packed model whose scales multiply.
HuggingFaceFiles packed_files(std::int64_t vocab_size = 256) {
  HuggingFaceFiles files;
  files.config = test::small_hugging_face_config("bitnet");
  files.config["vocab_size"] = vocab_size;
  files.config["quantization_config"] = {{"quant_method", "bitnet"},
                                         {"linear_class", "autobitlinear"}};
  ModelConfig config = test::small_model_config("bitnet-relu2");
  config.vocab_size = vocab_size;
  test::add_random_tensors(files, config, WeightForm::packed, "F32", "F32",
                           std::vector<float>(14, 0.75f));
  return files;
}

// What the comparison of an original with a changed copy says.
std::string difference(const std::function<void(HuggingFaceFiles&)>& change) {
  const test::TemporaryFolder folder;
  HuggingFaceFiles files = packed_files();
  files.write(folder / "a");
  change(files);
  files.write(folder / "b");
  const auto backend = make_cpu_backend(1);
  const SharedReader source = open_model(folder / "a"), written = open_model(folder / "b");
  try {
    verify_conversion(*backend, source, source, written);
  } catch (const Error& error) {
    return error.what();
  }
  return "equal";
}

}  // namespace

TEST_CASE("verification finds every kind of difference") {
  CHECK(difference([](HuggingFaceFiles&) {}) == "equal");
  const std::string up = "model.layers.1.mlp.up_proj.weight";
  contains(difference([&](HuggingFaceFiles& f) {
             std::uint8_t& byte = f.tensors.at(up).bytes[9];
             byte = static_cast<std::uint8_t>((byte & ~3) | ((byte & 3) + 1) % 3);
           }),
           "1 codes of tensor '" + up + "' differ");
  contains(difference([&](HuggingFaceFiles& f) { f.tensors.at(up + "_scale").bytes[0] ^= 1; }),
           "element 0 of tensor '" + up + "_scale'");
  contains(difference([](HuggingFaceFiles& f) {
             f.tensors.at("model.embed_tokens.weight").bytes[404] ^= 1;
           }),
           "element 101 of tensor 'model.embed_tokens.weight'");
  contains(difference([](HuggingFaceFiles& f) { f.config["rope_theta"] = 9999.0; }),
           "logits differ");
  contains(difference([](HuggingFaceFiles& f) { f.config["hidden_act"] = "silu"; }),
           "logits differ");
  contains(difference([](HuggingFaceFiles& f) { f.config["max_position_embeddings"] = 47; }),
           "context 47");
  contains(difference([](HuggingFaceFiles& f) {
             f.config["quantization_config"]["linear_class"] = "bitlinear";
           }),
           "_proj.weight_scale'");
}

TEST_CASE("the scale of codes that are all 0 may be any") {
  const test::TemporaryFolder folder;
  const std::string up = "model.layers.1.mlp.up_proj.weight";
  HuggingFaceFiles files = packed_files();
  std::ranges::fill(files.tensors.at(up).bytes, std::uint8_t{0x55});
  files.write(folder / "a");
  files.tensors.at(up + "_scale").bytes[0] ^= 1;
  files.write(folder / "b");
  const auto backend = make_cpu_backend(1);
  const SharedReader source = open_model(folder / "a"), written = open_model(folder / "b");
  CHECK(verify_conversion(*backend, source, source, written).logits.different == 0);
}

TEST_CASE("special tokens that a format lost are reported") {
  const test::TemporaryFolder folder;
  const HuggingFaceFiles files = packed_files(260);
  files.write(folder / "a");
  files.write(folder / "b");
  for (const auto& [model, ends] : {std::pair("a", "[257, 258]"), std::pair("b", "257")}) {
    BpeData data;
    for (int b = 0; b < 256; ++b)
      data.tokens.push_back(byte_character(static_cast<std::uint8_t>(b)));
    data.tokens.insert(data.tokens.end(), {"<start>", "<end>", "<turn>"});
    data.special = {256, 257, 258};
    data.bos = 256;
    data.eos = 257;
    make_bpe_tokenizer(data, "test")->save(folder / model);
    write_file(folder / model / "generation_config.json",
               fmt::format(R"({{"bos_token_id": 256, "eos_token_id": {}}})", ends));
  }
  const auto backend = make_cpu_backend(1);
  const SharedReader source = open_model(folder / "a"), written = open_model(folder / "b");
  const VerifyReport report = verify_conversion(*backend, source, source, written);
  REQUIRE(report.token_differences.size() == 1);
  contains(report.token_differences[0], "258 ('<turn>') ends a text in the source");
}

TEST_CASE("nothing gets the name of a model that was not verified") {
  const test::TemporaryFolder folder;
  packed_files().write(folder / "in");
  const auto source = open_model(folder / "in");
  FolderOptions options;
  options.verify = [](const fs::path&) { throw Error("not the same"); };
  CHECK_THROWS_WITH(write_native(*source, folder / "out", options), "not the same");
  std::size_t left = 0;
  for ([[maybe_unused]] const auto& item : fs::directory_iterator(folder.path())) ++left;
  CHECK(left == 1);
}

TEST_CASE("models whose vocabulary is no tokenizer's are compared on pseudo-random tokens") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  ModelConfig config = test::small_model_config("llama");
  config.vocab_size = 100;
  test::TinyModel model(*backend, config, 5);
  save_latent(model, folder / "a");
  const SharedReader source = open_model(folder / "a");
  const VerifyReport report = verify_conversion(*backend, source, source, source);
  CHECK_FALSE(report.per_byte);
  CHECK(report.source_bits == report.written_bits);
  contains(describe(report), "bits/token");
}
