// SPDX-License-Identifier: MIT
// Twenty AdamW steps beside an independent PyTorch BitNet: same initial weights, same bytes, same
// schedule. The record in tests/fixtures/twin/ was made by tests/fixtures/make_twin_fixture.py.
#include <nlohmann/json.hpp>

#include <bit>
#include <map>

#include "core/base/file.h"
#include "core/cpu/cpu_backend.h"
#include "tests/reference/reference_model.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/support/tiny_trainer.h"

using namespace bitnet;
using namespace bitnet::test;

namespace {

constexpr std::int64_t kBatch = 4, kLength = 64, kSteps = 20;
constexpr double kWeightDecay = 0.1;

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(BITNET_SOURCE_DIR) / "tests/fixtures/twin" / name;
}

ModelConfig config_of(const std::string& name) {
  ModelConfig c;
  c.linear = name.starts_with("float") ? "float" : name.starts_with("b158") ? "b158" : "b1";
  const bool swiglu = name.ends_with("swiglu"), faq = name.ends_with("faq");
  c.hidden_act = swiglu ? "silu" : "relu2";
  c.gated_mlp = swiglu;
  c.intermediate_size = swiglu ? 192 : 256;
  c.use_sub_norms =
      faq;  // a gain-free norm inside each BitLinear is one before each projection's input
  c.norm_gain = !faq;
  c.hidden_size = 64;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.max_position_embeddings = kLength;
  c.rms_norm_eps = 1e-6;
  c.tie_word_embeddings = false;
  return c;
}

using Weights = std::map<std::string, std::vector<float>>;

// The stored weights are bf16, one tensor after the other.
Weights read_weights(const std::string& file, const nlohmann::json& tensors) {
  const std::string bytes = read_text_file(fixture(file));
  std::size_t offset = 0;
  Weights weights;
  for (const auto& tensor : tensors) {
    std::vector<float>& values = weights[tensor.at("name").get<std::string>()];
    values.resize(tensor.at("shape")[0].get<std::size_t>() *
                  tensor.at("shape")[1].get<std::size_t>());
    REQUIRE(offset + 2 * values.size() <= bytes.size());
    for (float& value : values) {
      const auto low = std::uint8_t(bytes[offset]), high = std::uint8_t(bytes[offset + 1]);
      value = std::bit_cast<float>(std::uint32_t(high) << 24 | std::uint32_t(low) << 16);
      offset += 2;
    }
  }
  CHECK(offset == bytes.size());
  return weights;
}

// Every matrix comes from the record; gains start at 1 on both sides.
void load_weights(Transformer& model, const Weights& weights) {
  model.initialize(1);
  std::size_t matrices = 0;
  for (Parameter& p : model.parameters().all()) {
    if (p.spec.role == TensorRole::norm_gain) continue;
    const auto& values = weights.at(p.spec.name);
    REQUIRE(std::int64_t(values.size()) == p.spec.shape.elements());
    model.backend().copy_from_host(values.data(), p.value);
    ++matrices;
  }
  CHECK(matrices == weights.size());
  model.refresh_quantized();
}

Batch window_batch(const std::string& text, const nlohmann::json& offsets, std::int64_t step) {
  Batch batch;
  batch.size = kBatch;
  for (std::int64_t b = 0; b < kBatch; ++b) {
    const std::size_t first = offsets.at(std::size_t(step * kBatch + b)).get<std::size_t>();
    for (std::size_t t = 0; t < std::size_t(kLength); ++t) {
      batch.tokens.push_back(std::uint8_t(text.at(first + t)));
      batch.targets.push_back(std::uint8_t(text.at(first + t + 1)));
    }
  }
  return batch;
}

}  // namespace

TEST_CASE("the reference model gives the PyTorch twin's first loss", "[model][reference]") {
  const auto record = nlohmann::json::parse(read_text_file(fixture("fixture.json")));
  const Batch batch = window_batch(read_text_file(fixture("text.u8")), record.at("offsets"), 0);
  for (const auto& twin : record.at("cases")) {
    const std::string name = twin.at("name"), weights = twin.at("weights");
    reference::ReferenceModel<double> model(config_of(name));
    for (const auto& [tensor, values] :
         read_weights(weights + ".bf16", record.at("weights").at(weights)))
      model.tensors[tensor].assign(values.begin(), values.end());
    const double difference = std::abs(model.loss(batch.tokens, batch.targets, kBatch) -
                                       twin.at("losses").at(0).get<double>());
    INFO(name << " differs by " << difference);
    // The twin prints an fp32 mean; where it quantises, single codes near a tie may differ.
    CHECK(difference <= (name.starts_with("float") ? 2e-6 : 2e-5));
  }
}

TEST_CASE("twenty training steps give the losses of the PyTorch twin", "[model][slow]") {
  const auto record = nlohmann::json::parse(read_text_file(fixture("fixture.json")));
  const std::string text = read_text_file(fixture("text.u8"));
  const auto backend = make_cpu_backend();
  for (const auto& twin : record.at("cases")) {
    const std::string name = twin.at("name");
    Transformer model(*backend, config_of(name), WeightForm::latent);
    const std::string weights = twin.at("weights");
    load_weights(model, read_weights(weights + ".bf16", record.at("weights").at(weights)));
    TinyTrainer trainer(model, kBatch, kLength);
    // Both sides are fp32 and sum in different orders. Where operands are rounded to codes, such a
    // difference now and then moves a code, which training amplifies: the twin differs from itself
    // by `spread` when its initial weights move by one fp32 rounding. So the whole course is held
    // to 2e-3, or to twice the twin's own spread where that is more (the two FAQ cases, whose
    // sub-norms pass every code on), and the first two losses, before anything is amplified, to
    // 1e-4: they already test forward, every gradient and AdamW.
    const bool exact = name.starts_with("float");
    const double spread = twin.at("spread");
    const double whole = exact ? 1e-4 : std::max(2e-3, 2 * spread);
    double worst = 0;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      const double learning_rate = twin.at("learning_rates").at(std::size_t(step));
      const double loss =
          trainer.step(window_batch(text, record.at("offsets"), step), learning_rate, kWeightDecay);
      const double difference =
          std::abs(loss - twin.at("losses").at(std::size_t(step)).get<double>());
      INFO(name << " step " << step + 1 << " loss " << loss);
      CHECK(difference <= (step < 2 ? 1e-4 : whole));
      worst = std::max(worst, difference);
    }
    INFO(name << ": largest difference " << worst);
    CHECK(worst <= whole);
  }
}
