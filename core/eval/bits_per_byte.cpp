// SPDX-License-Identifier: MIT
#include "core/eval/bits_per_byte.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

namespace bitnet {
namespace {

// Logits of the windows computed at once: 256 MiB of them.
constexpr std::int64_t kMaxLogits = std::int64_t{1} << 26;

EvalOptions resolve(const EvalOptions& options, const ModelConfig& config) {
  EvalOptions o = options;
  const std::int64_t limit = config.max_position_embeddings;
  if (o.context == 0) o.context = limit;
  if (o.context < 1 || o.context > limit)
    throw UsageError(
        fmt::format("the context is {} tokens, but this model takes 1 to {}", o.context, limit));
  if (o.stride == 0) o.stride = std::max<std::int64_t>(1, o.context / 2);
  if (o.stride < 1 || o.stride > o.context)
    throw UsageError(fmt::format(
        "the stride is {}, but must be 1 to {}, the context: a longer one would skip tokens",
        o.stride, o.context));
  if (o.batch < 1)
    throw UsageError(fmt::format("the batch is {}, but must be at least 1", o.batch));
  return o;
}

void check_text(const ModelConfig& config, const EvalText& text) {
  if (text.tokens.empty() || text.bytes <= 0)
    throw Error("there is nothing to evaluate: the text is empty");
  config.require_token_ids(text.vocabulary);
}

// Inputs and targets of one window; a target of -1 is not scored.
void fill_window(const EvalText& text, const EvalWindow& window, std::span<std::int32_t> inputs,
                 std::span<std::int32_t> targets) {
  const auto begin = static_cast<std::size_t>(window.begin);
  const auto unscored = static_cast<std::size_t>(window.first_scored - window.begin);
  if (begin == 0) {
    inputs[0] = text.start;
    text.tokens.copy(0, inputs.subspan(1));
  } else {
    text.tokens.copy(begin - 1, inputs);
  }
  std::fill_n(targets.begin(), unscored, -1);
  text.tokens.copy(begin + unscored, targets.subspan(unscored));
}

}  // namespace

EvalText::EvalText(const Tokenizer& tokenizer, TokenSpan text, std::int64_t text_bytes)
    : tokens(text), bytes(text_bytes), vocabulary(tokenizer.vocab_size()) {
  const auto id = tokenizer.document_start();
  if (id) start = *id;
  if (tokens.empty() || (id && (tokens[0] != *id || !tokenizer.token_bytes(*id).empty()))) return;
  start = tokens[0];
  tokens = tokens.subspan(1);
  bytes -= static_cast<std::int64_t>(tokenizer.token_bytes(start).size());
}

std::vector<EvalWindow> plan_windows(std::int64_t tokens, std::int64_t context,
                                     std::int64_t stride) {
  BITNET_CHECK(tokens >= 0 && stride >= 1 && stride <= context, "{} tokens, context {}, stride {}",
               tokens, context, stride);
  std::vector<EvalWindow> windows;
  for (std::int64_t scored = 0; scored < tokens;) {
    const std::int64_t end = std::min(tokens, scored == 0 ? context : scored + stride);
    windows.push_back({std::max<std::int64_t>(0, end - context), end, scored});
    scored = end;
  }
  return windows;
}

std::int64_t eval_batch(const ModelConfig& config, std::int64_t batch, std::int64_t length) {
  return std::clamp<std::int64_t>(kMaxLogits / (length * config.vocab_size), 1, batch);
}

EvalResult evaluate(Transformer& model, const EvalText& text, const EvalOptions& options) {
  check_text(model.config(), text);
  const EvalOptions o = resolve(options, model.config());
  const auto start = std::chrono::steady_clock::now();

  const auto tokens = static_cast<std::int64_t>(text.tokens.size());
  const std::vector<EvalWindow> windows = plan_windows(tokens, o.context, o.stride);
  const auto window_count = static_cast<std::int64_t>(windows.size());
  const std::int64_t length = windows.front().end;  // of every window
  const std::int64_t batch = eval_batch(model.config(), std::min(o.batch, window_count), length);

  Backend& backend = model.backend();
  Activations activations(backend, model.config(), batch, length, Keep::nothing,
                          /*mixed=*/false, DType::f32, o.kv_cache);
  Tensor inputs = backend.make_tensor(DType::i32, {batch, length});
  Tensor targets = backend.make_tensor(DType::i32, {batch, length});
  Tensor loss = backend.make_tensor(DType::f32, {batch, length});
  std::vector<std::int32_t> host_inputs(static_cast<std::size_t>(batch * length)),
      host_targets(host_inputs.size());
  std::vector<float> host_loss(host_inputs.size());

  EvalResult result;
  for (std::int64_t first = 0; first < window_count; first += batch) {
    const std::int64_t count = std::min(batch, window_count - first);
    for (std::int64_t w = 0; w < count; ++w) {
      const auto offset = static_cast<std::size_t>(w * length),
                 size = static_cast<std::size_t>(length);
      fill_window(text, windows[static_cast<std::size_t>(first + w)],
                  std::span(host_inputs).subspan(offset, size),
                  std::span(host_targets).subspan(offset, size));
    }
    const TensorView input_rows = inputs.view().rows(0, count),
                     target_rows = targets.view().rows(0, count);
    const TensorView loss_rows = loss.view().rows(0, count);
    backend.copy_from_host(host_inputs.data(), input_rows);
    backend.copy_from_host(host_targets.data(), target_rows);
    const TensorView logits = model.forward(input_rows, activations);
    backend.cross_entropy(logits, target_rows.reshaped({count * length}),
                          loss_rows.reshaped({count * length}),
                          /*scale=*/1.0f, /*dlogits=*/{});
    backend.copy_to_host(loss_rows, host_loss.data());

    for (std::int64_t w = 0; w < count; ++w) {
      double window_nats = 0;  // positions that are not scored add 0
      for (std::int64_t i = w * length; i < (w + 1) * length; ++i)
        window_nats += static_cast<double>(host_loss[static_cast<std::size_t>(i)]);
      result.nats += window_nats;
    }
    if (o.progress) o.progress(windows[static_cast<std::size_t>(first + count - 1)].end);
  }

  result.tokens = tokens;
  result.bytes = text.bytes;
  result.bits_per_byte = result.nats / static_cast<double>(text.bytes) / std::numbers::ln2;
  result.perplexity = std::exp(result.nats / static_cast<double>(tokens));
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.tokens_per_second = static_cast<double>(tokens) / std::max(result.seconds, 1e-9);
  return result;
}

TextLogits first_logits(Transformer& model, const EvalText& text, DType kv_cache) {
  check_text(model.config(), text);
  constexpr std::int64_t kMostInputs = 1024;  // bounds the memory of a large vocabulary's logits
  const std::int64_t length = std::min({static_cast<std::int64_t>(text.tokens.size()), kMostInputs,
                                        model.config().max_position_embeddings});
  Backend& backend = model.backend();
  Activations activations(backend, model.config(), 1, length, Keep::nothing,
                          /*mixed=*/false, DType::f32, kv_cache);
  Tensor inputs = backend.make_tensor(DType::i32, {1, length});
  TextLogits result;
  result.inputs.resize(static_cast<std::size_t>(length));
  std::vector<std::int32_t> targets(result.inputs.size());
  fill_window(text, {0, length, 0}, result.inputs, targets);
  backend.copy_from_host(result.inputs.data(), inputs.view());
  const TensorView logits = model.forward(inputs.view(), activations);
  result.logits.resize(static_cast<std::size_t>(logits.elements()));
  backend.copy_to_host(logits, result.logits.data());
  return result;
}

}  // namespace bitnet
