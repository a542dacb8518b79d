// SPDX-License-Identifier: MIT
// The model against the double reference: logits, loss, and the gradient of every parameter
// tensor by the complex step.
//
// The bounds of fp32 are not worst cases (those grow by a factor a layer and would say nothing) but what
// independent fp32 roundings give: each of the ~10 operations of a block puts about sqrt(K) 2^-24,
// 1e-6, on its result. Measured worst over all variants, relative: logits 6e-7, gradients 3e-6; the
// bounds leave a factor of ten. One flipped int8 code gives 1e-3.
#include "tests/reference/complex_step.h"
#include "tests/reference/reference_model.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_trainer.h"

using namespace bitnet;
using namespace bitnet::test;
using reference::Complex;
using reference::kComplexStep;
using reference::ReferenceModel;

namespace {

struct Tolerance {
  double logits, gradients;
};

// Of these few tokens a backend that rounds operands computes attention without that; so where the
// projections are integer products, the head alone is rounded on the way to the loss, and codes are
// those of the reference. Where they are products of floats, each of a dozen in a row rounds; and a
// warm-up's codes may then go either way. Measured worst, in units of the rounding: logits 3 and 7,
// gradients 9 and 22.
Tolerance tolerance_of(const TestBackend& b, const Transformer& model, double amount = 1) {
  const bool integer = model.config().quantized_activations() && amount == 1;
  return {1e-5 + (integer ? 4 : 10) * b.operand_rounding,
          3e-5 + (integer ? 12 : 30) * b.operand_rounding};
}
// fp32 moves an activation of up to 127 code units by about 127 · 3e-7; a rounding nearer to a tie
// than this may go either way.
constexpr double kTieDistance = 5e-5;
constexpr std::int64_t kBatch = 2, kLength = 4;

struct Variant {
  std::string name;
  ModelConfig config;
};

template <typename Change>
Variant variant(const std::string& name, const std::string& linear, const std::string& profile,
                const Change& change) {
  Variant v{name, tiny_config(linear, profile)};
  change(v.config);
  return v;
}

std::vector<Variant> variants() {
  const auto nothing = [](ModelConfig&) {};
  return {
      variant("float", "float", "bitnet", nothing),
      variant("b158", "b158", "bitnet", nothing),
      variant("b1 weights in the bitnet profile", "b1", "bitnet", nothing),
      variant("b158, groups", "b158", "bitnet", [](ModelConfig& c) { c.weight_group_size = 64; }),
      variant("b1, groups", "b1", "bitnet", [](ModelConfig& c) { c.weight_group_size = 64; }),
      variant("b158, weight-only", "b158", "bitnet", [](ModelConfig& c) { c.activation_bits = 0; }),
      variant("b1, weight-only, groups", "b1", "bitnet",
              [](ModelConfig& c) { c.activation_bits = 0, c.weight_group_size = 64; }),
      variant("b158, absmedian", "b158", "bitnet",
              [](ModelConfig& c) { c.weight_scale = "absmedian"; }),
      variant("bitnet-relu2", "", "bitnet-relu2", nothing),
      variant("bitnet-faq", "", "bitnet-faq", nothing),
      variant("bitnet-b1", "", "bitnet-b1", nothing),
      variant("bitnet-b1, float", "float", "bitnet-b1", nothing),
      variant("llama", "", "llama", nothing),
      variant("llama, float", "float", "llama", nothing),
      variant("llama, weight-only", "b158", "llama", [](ModelConfig& c) { c.activation_bits = 0; }),
      variant("GQA", "b158", "bitnet", [](ModelConfig& c) { c.num_key_value_heads = 2; }),
      variant("MQA", "b158", "bitnet", [](ModelConfig& c) { c.num_key_value_heads = 1; }),
      variant("untied", "b158", "bitnet", [](ModelConfig& c) { c.tie_word_embeddings = false; }),
      variant("ungated relu2, untied, head_dim 32", "b158", "bitnet-relu2",
              [](ModelConfig& c) {
                c.gated_mlp = false, c.tie_word_embeddings = false, c.head_dim = 32,
                c.num_key_value_heads = 2;
              }),
  };
}

template <typename T>
ReferenceModel<T> reference_of(Transformer& model) {
  ReferenceModel<T> reference(model.config());
  for (const Parameter& p : model.parameters().all()) {
    const auto values = doubles_of(model.backend(), p.value);
    reference.tensors[p.spec.name].assign(values.begin(), values.end());
  }
  return reference;
}

// The first batch in which no activation code is too near to call.
Batch decidable_batch(ReferenceModel<double>& reference, const ModelConfig& config) {
  for (std::uint32_t seed = 1; seed < 200; seed += 2) {
    Batch batch = random_batch(seed, kBatch, kLength, config.vocab_size);
    reference.logits(batch.tokens, kBatch);
    if (reference.ties.least > kTieDistance) return batch;
  }
  FAIL("no batch without near ties");
  return {};
}

double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double value : x) most = std::max(most, std::abs(value));
  return most;
}

void check_logits(const Tolerance& tolerance, Transformer& model, ReferenceModel<double>& reference,
                  const Batch& batch) {
  const auto expected = reference.logits(batch.tokens, kBatch);
  const auto actual = logits_of(model, batch.tokens, kBatch);
  REQUIRE(actual.size() == expected.size());
  double error = 0;
  for (std::size_t i = 0; i < actual.size(); ++i)
    error = std::max(error, std::abs(actual[i] - expected[i]));
  CHECK(error <= tolerance.logits * largest(expected));
}

// Along a random direction d over all elements of a tensor, <gradient, d> must be the complex
// step's derivative; for normal d its size is that of |gradient|. So one pass of the reference
// checks a whole tensor; single elements are checked beside it.
void check_gradients(const TestBackend& b, const Tolerance& tolerance, Transformer& model,
                     ReferenceModel<Complex>& reference, const Batch& batch,
                     const DropoutState* dropout = nullptr) {
  TinyTrainer trainer(model, kBatch, kLength, Keep::everything, b.gradients);
  const double loss = trainer.gradients(batch, dropout);
  CHECK(std::abs(loss - reference.loss(batch.tokens, batch.targets, kBatch).real()) <=
        tolerance.logits * loss);

  std::uint32_t seed = 100;
  for (const Parameter& p : model.parameters().all()) {
    INFO(p.spec.name);
    const auto gradient = doubles_of(model.backend(), p.gradient);
    double norm = 0;
    for (const double g : gradient) norm += g * g;
    norm = std::sqrt(norm);
    CHECK(norm > 0);

    auto& weights = reference.tensors.at(p.spec.name);
    const auto original = weights;
    const auto derivative = [&] {
      return reference.loss(batch.tokens, batch.targets, kBatch).imag() / kComplexStep;
    };
    const auto direction = random_numbers(seed++, std::int64_t(gradient.size()));
    double expected_slope = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      weights[i] += Complex(0, kComplexStep * direction[i]);
      expected_slope += gradient[i] * direction[i];
    }
    CHECK(std::abs(expected_slope - derivative()) <= tolerance.gradients * norm);
    weights = original;

    const std::size_t element =
        RandomStream{seed, RandomPurpose::test, 2}.below(0, gradient.size());
    weights[element] += Complex(0, kComplexStep);
    CHECK(std::abs(gradient[element] - derivative()) <= tolerance.gradients * largest(gradient));
    weights = original;
  }
}

}  // namespace

TEST_CASE("logits and the gradients of every tensor agree with the reference", "[model]") {
  const TestBackend b = default_backend();
  const auto backend = b.make();
  for (const Variant& v : variants()) {
    INFO(v.name);
    TinyModel model(*backend, v.config, 1);
    auto reference = reference_of<double>(model);
    const Batch batch = decidable_batch(reference, v.config);
    check_logits(tolerance_of(b, model), model, reference, batch);
    auto complex_reference = reference_of<Complex>(model);
    check_gradients(b, tolerance_of(b, model), model, complex_reference, batch);
  }
}

TEST_CASE("the quantisation warm-up mixes the float and the quantised model", "[model]") {
  const TestBackend b = default_backend();
  const auto backend = b.make();
  for (const char* linear : {"b158", "b1"}) {
    INFO(linear);
    TinyModel model(*backend, tiny_config(linear), 2);
    auto reference = reference_of<double>(model);
    const Batch batch = decidable_batch(reference, model.config());
    const auto quantized_logits = logits_of(model, batch.tokens, kBatch);

    for (const double amount : {0.0, 0.25, 0.9}) {
      INFO("amount " << amount);
      model.refresh_quantized(amount);
      reference.quantized_amount = amount;
      reference.logits(batch.tokens, kBatch);
      const Batch decidable = decidable_batch(reference, model.config());
      const Tolerance tolerance = tolerance_of(b, model, amount);
      check_logits(tolerance, model, reference, decidable);
      auto complex_reference = reference_of<Complex>(model);
      complex_reference.quantized_amount = amount;
      check_gradients(b, tolerance, model, complex_reference, decidable);
    }

    // Amount 0 is the float twin: its operands are the same numbers.
    model.refresh_quantized(0.0);
    ModelConfig float_config = model.config();
    float_config.linear = "float";
    Transformer float_model(*backend, float_config, WeightForm::latent);
    for (Parameter& p : float_model.parameters().all())
      backend->copy(model.parameters().at(p.spec.name).value, p.value);
    CHECK(logits_of(model, batch.tokens, kBatch) == logits_of(float_model, batch.tokens, kBatch));

    // Back at amount 1 the integer path gives its own bits again.
    model.refresh_quantized(1.0);
    CHECK(logits_of(model, batch.tokens, kBatch) == quantized_logits);
  }
}

TEST_CASE("dropout uses the same masks forward and backward, scaled by 1 / (1 - p)", "[model]") {
  const TestBackend b = default_backend();
  const auto backend = b.make();
  ModelConfig config = tiny_config("float");
  config.dropout = 0.25;
  TinyModel model(*backend, config, 3);
  const DropoutState state{.seed = 7, .step = 5, .first_token = 24};
  auto reference = reference_of<Complex>(model);
  const auto full_loss = reference.loss(random_tokens(1, 8, 32), random_tokens(2, 8, 32), kBatch);
  reference.dropout = [&](std::int64_t site, std::vector<Complex>& x) {
    // Places: the embedding 0; layer l: attention 4 l + 1, feed-forward 4 l + 2; each owns 2^44
    // numbers of the stream.
    const std::int64_t place = site == 0 ? 0 : (site - 1) / 2 * 4 + 1 + (site - 1) % 2;
    const RandomStream stream{state.seed, RandomPurpose::dropout, state.step};
    const std::uint64_t first = (std::uint64_t(place) << 44) + state.first_token * 64;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const bool kept = stream.block((first + i) / 4)[(first + i) % 4] >= 0.25 * 0x1p32;
      x[i] = kept ? x[i] / 0.75 : Complex(0);
    }
  };
  const Batch batch{random_tokens(1, 8, 32), random_tokens(2, 8, 32), kBatch};
  CHECK(std::abs(reference.loss(batch.tokens, batch.targets, kBatch) - full_loss) > 1e-3);
  check_gradients(b, tolerance_of(b, model), model, reference, batch, &state);
}

TEST_CASE("dropout is off in evaluation", "[model]") {
  const TestBackend b = default_backend();
  const auto backend = b.make();
  ModelConfig config = tiny_config("b158");
  TinyModel without(*backend, config, 3);
  config.dropout = 0.5;
  TinyModel with(*backend, config, 3);
  const auto tokens = random_tokens(1, 8, 32);
  CHECK(logits_of(with, tokens, 2) == logits_of(without, tokens, 2));
}
