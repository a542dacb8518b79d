// SPDX-License-Identifier: MIT
#include "core/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <functional>

namespace bitnet {
namespace {

// Rotary angles (2104.09864): element pair i of a head turns by position · theta^(-2i/E). A row
// holds E/2 cosines, then E/2 sines. Sine and cosine are slow for so many angles, so position a + b,
// a a multiple of 64, is turned by a and then by b: two roundings more, in double.
Tensor make_rope_table(Backend& backend, const ModelConfig& config) {
  constexpr std::int64_t kStep = 64;
  const std::int64_t positions = config.max_position_embeddings, width = config.head_size(),
                     half = width / 2;
  Tensor tensor = backend.make_tensor(DType::f32, {positions, width});  // refuses what is too long
  std::vector<double> frequency(static_cast<std::size_t>(half));
  for (std::size_t i = 0; i < frequency.size(); ++i)
    frequency[i] =
        std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(width));
  using Turns = std::vector<std::complex<double>>;
  const auto turns_at = [&](std::int64_t position, Turns& turns) {
    for (const double f : frequency)
      turns.push_back(std::polar(1.0, static_cast<double>(position) * f));
  };
  Turns small;  // [kStep, half]
  for (std::int64_t b = 0; b < std::min(kStep, positions); ++b) turns_at(b, small);

  std::vector<float> table(static_cast<std::size_t>(positions * width));
  Turns large;  // [half]
  for (std::int64_t position = 0; position < positions; ++position) {
    if (position % kStep == 0) {
      large.clear();
      turns_at(position, large);
    }
    float* const row = table.data() + position * width;
    const std::complex<double>* const turn = small.data() + position % kStep * half;
    for (std::int64_t i = 0; i < half; ++i) {
      const std::complex<double> first = large[static_cast<std::size_t>(i)], then = turn[i];
      row[i] = static_cast<float>(first.real() * then.real() - first.imag() * then.imag());
      row[half + i] = static_cast<float>(first.real() * then.imag() + first.imag() * then.real());
    }
  }
  backend.copy_from_host(table.data(), tensor);
  return tensor;
}

}  // namespace

Transformer::Transformer(Backend& backend, const ModelConfig& config, WeightForm form,
                         const TensorSource& source)
    : backend_(backend),
      config_((config.validate(), config)),
      parameters_(backend, config_, form, source) {
  for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
    blocks_.emplace_back(config_, parameters_, layer);
  final_gain_ = parameters_.find("model.norm.weight");
  embedding_ = &parameters_.at("model.embed_tokens.weight");
  head_ = config_.tie_word_embeddings ? embedding_ : &parameters_.at("lm_head.weight");
  rope_table_ = make_rope_table(backend, config_);
  if (config_.quantized())
    mode_ = config_.quantized_activations() ? ProductMode::integer : ProductMode::mixed;
}

void Transformer::initialize(std::uint64_t seed) {
  std::vector<float> values;
  std::uint32_t index = 0;
  for (Parameter& p : parameters_.all()) {
    const RandomStream stream{seed, RandomPurpose::initial_weights, index++};
    BITNET_CHECK(p.value, "'{}' is packed and cannot be initialised", p.spec.name);
    values.resize(static_cast<std::size_t>(p.spec.shape.elements()));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = p.spec.role == TensorRole::norm_gain
                      ? 1.0f
                      : static_cast<float>(stream.normal(i) * p.spec.init_std);
    backend_.copy_from_host(values.data(), p.value);
  }
  refresh_quantized();
}

void Transformer::refresh_quantized(double amount) {
  BITNET_CHECK(amount >= 0 && amount <= 1, "quantisation amount {} is not in [0, 1]", amount);
  if (!config_.quantized()) return;
  const ProductMode mode =
      config_.quantized_activations() && amount == 1 ? ProductMode::integer : ProductMode::mixed;
  bool same_pass = mode == mode_ && static_cast<float>(amount) == quantized_amount_;
  mode_ = mode;
  quantized_amount_ = static_cast<float>(amount);
  if (parameters_.form() == WeightForm::latent) parameters_.create_flips(backend_);
  quantizations_.clear();
  for (Parameter& p : parameters_.all()) {
    if (!p.packed || !p.value) continue;
    quantizations_.push_back({p.value, p.packed, p.weight_scale, p.flips});
  }
  backend_.quantize_weights(config_.weight_quantizer(), quantizations_);
  for (Parameter& p : parameters_.all()) {
    if (!p.packed) continue;
    if (mode_ != ProductMode::mixed) {
      p.operand = Tensor();
      continue;
    }
    BITNET_CHECK(p.value || amount == 1, "'{}' is packed: its quantisation amount is 1, not {}",
                 p.spec.name, amount);
    if (!p.operand) {
      p.operand = backend_.make_tensor(DType::f32, p.spec.shape);
      same_pass = false;
    }
    backend_.dequantize_weights(p.packed, p.weight_scale, p.operand);
    if (amount != 1) backend_.blend(p.value, p.operand, quantized_amount_, p.operand);
  }
  if (!same_pass) number_ = unique_number();
}

Pass Transformer::make_pass(ConstTensorView tokens, Activations& activations, KvCache* cache,
                            const DropoutState* dropout) const {
  BITNET_CHECK(tokens.dtype() == DType::i32 && tokens.shape().rank() == 2,
               "tokens are {} {}, expected i32 [B, T]", to_string(tokens.dtype()),
               tokens.shape().to_string());
  const std::int64_t batch = tokens.dim(0), count = tokens.dim(1);
  BITNET_CHECK(
      batch >= 1 && count >= 1 && batch * count <= activations.max_batch * activations.max_tokens,
      "a batch of {} x {} tokens in activations made for {} x {}", batch, count,
      activations.max_batch, activations.max_tokens);
  const std::int64_t end = (cache == nullptr ? 0 : cache->length()) + count;
  BITNET_CHECK(end <= config_.max_position_embeddings,
               "position {} is beyond max_position_embeddings = {}", end - 1,
               config_.max_position_embeddings);
  return {.backend = backend_,
          .config = config_,
          .activations = activations,
          .rope_table = rope_table_,
          .mode = mode_,
          .quantized_amount = quantized_amount_,
          .batch = batch,
          .tokens = count,
          .cache = cache,
          .dropout = dropout};
}

TensorView Transformer::run_blocks(Pass& pass, ConstTensorView tokens) {
  Activations& a = pass.activations;
  const std::int64_t width = config_.hidden_size;
  const TensorView last = pass.rows_of(a.residual, width);
  const auto block_input = [&](std::size_t layer) {
    return a.keep == Keep::nothing
               ? last
               : pass.rows_of(a.block_input(static_cast<std::int64_t>(layer)), width);
  };
  const TensorView first = block_input(0);
  backend_.embedding(tokens.reshaped({pass.rows()}), embedding_->value, first);
  pass.apply_dropout(first, DropoutSite::embedding, 0, first);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer)
    blocks_[layer].forward(pass, block_input(layer),
                           layer + 1 < blocks_.size() ? block_input(layer + 1) : last);
  return last;
}

void Transformer::use_head(HeadPrecision precision) {
  number_ = unique_number();
  for (Tensor* made : {&head_codes_, &head_scale_, &head_in_codes_, &head_in_scale_})
    *made = Tensor();
  head_floats_ = Tensor();
  if (precision == HeadPrecision::fp32) {
    float_head();
    return;
  }
  head_codes_ = backend_.make_streamed_tensor(DType::i8, head_->spec.shape);
  head_scale_ = backend_.make_tensor(DType::f32, {config_.vocab_size});
  backend_.quantize_activations(head_->value, head_codes_, head_scale_);
}

ConstTensorView Transformer::float_head() {
  if (head_->value.dtype() != DType::bf16) return head_->value;
  if (!head_floats_) {
    head_floats_ = backend_.make_tensor(DType::f32, head_->spec.shape);
    backend_.convert(head_->value, head_floats_);
  }
  return head_floats_;
}

TensorView Transformer::head_forward(Activations& a, ConstTensorView x, std::int64_t rows) {
  const std::int64_t width = config_.hidden_size;
  const TensorView logits = leading(a.logits, {rows, config_.vocab_size});
  const TensorView stats = leading(a.final_stats, {rows, 2});
  const NormArguments norm{config_.norm_kind(), final_gain(),
                           static_cast<float>(config_.rms_norm_eps)};
  if (head_precision() == HeadPrecision::int8) {
    if (head_in_scale_.elements() < rows) {
      number_ = unique_number();
      head_in_codes_ = backend_.make_tensor(DType::i8, {rows, width});
      head_in_scale_ = backend_.make_tensor(DType::f32, {rows});
    }
    const TensorView codes = leading(head_in_codes_, {rows, width}),
                     scale = leading(head_in_scale_, {rows});
    backend_.norm_quantize(norm, x, codes, scale, stats);
    backend_.int8_linear(codes, scale, head_codes_, head_scale_, logits);
    return logits;
  }
  const TensorView normed = leading(a.final_normed, {rows, width});
  backend_.norm(norm.kind, x, norm.gain, norm.eps, normed, stats);
  backend_.linear(normed, float_head(), logits);
  return logits;
}

TensorView Transformer::forward(ConstTensorView tokens, Activations& activations,
                                const DropoutState* dropout) {
  Pass pass = make_pass(tokens, activations, nullptr, dropout);
  return head_forward(activations, run_blocks(pass, tokens), pass.rows());
}

TensorView Transformer::extend(ConstTensorView tokens, KvCache& cache, Activations& activations) {
  BITNET_CHECK(tokens.dim(0) == 1, "{} sequences, expected 1 for a cache", tokens.dim(0));
  // Here, because recorded operations do not look.
  BITNET_CHECK(cache.length() + tokens.dim(1) <= cache.capacity(),
               "{} tokens after {} in a cache of {}", tokens.dim(1), cache.length(),
               cache.capacity());
  Pass pass = make_pass(tokens, activations, &cache, nullptr);
  const auto run = [&] {
    head_forward(activations, run_blocks(pass, tokens).rows(pass.tokens - 1, 1), 1);
  };
  if (pass.tokens == 1)
    backend_.repeat(cache.one_token(tokens, number_, activations.number), cache.length(),
                    std::cref(run));  // by reference: a copy would be allocated
  else
    run();
  cache.advance(pass.tokens);
  return leading(activations.logits, {1, config_.vocab_size});
}

void Transformer::backward(ConstTensorView tokens, ConstTensorView dlogits,
                           Activations& activations, const DropoutState* dropout,
                           GradientPrecision precision) {
  BITNET_CHECK(activations.keep != Keep::nothing, "activations that keep nothing for backward");
  BITNET_CHECK(head_precision() == HeadPrecision::fp32, "an int8 head has no backward pass");
  parameters_.create_gradients(backend_);
  Pass pass = make_pass(tokens, activations, nullptr, dropout);
  pass.gradient_precision = precision;
  const std::int64_t width = config_.hidden_size;
  const TensorView d_residual = pass.rows_of(activations.d_residual, width);
  const TensorView d_normed = pass.rows_of(activations.d_normed, width);

  backend_.linear_backward(pass.rows_of(activations.final_normed, width), head_->value, dlogits,
                           d_normed, false, head_->gradient);
  backend_.norm_backward(config_.norm_kind(), pass.rows_of(activations.residual, width),
                         final_gain(), leading(activations.final_stats, {pass.rows(), 2}), d_normed,
                         d_residual, false,
                         final_gain_ == nullptr ? TensorView() : final_gain_->gradient.view());
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) block->backward(pass);
  const TensorView d_embedding =
      pass.apply_dropout(d_residual, DropoutSite::embedding, 0, d_residual);
  backend_.embedding_backward(tokens.reshaped({pass.rows()}), d_embedding, embedding_->gradient);
}

}  // namespace bitnet
