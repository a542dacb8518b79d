// SPDX-License-Identifier: MIT
#include "core/eval/bits_per_byte.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

namespace bitnet {
namespace {

EvalOptions resolve(const EvalOptions& options, const ModelConfig& config) {
  config.require_byte_vocabulary();
  EvalOptions o = options;
  const std::int64_t limit = config.max_position_embeddings;
  if (o.context == 0) o.context = limit;
  if (o.context < 1 || o.context > limit)
    throw UsageError(
        fmt::format("the context is {} tokens, but this model takes 1 to {}", o.context, limit));
  if (o.stride == 0) o.stride = std::max<std::int64_t>(1, o.context / 2);
  if (o.stride < 1 || o.stride > o.context)
    throw UsageError(fmt::format(
        "the stride is {}, but must be 1 to {}, the context: a longer one would skip bytes",
        o.stride, o.context));
  if (o.batch < 1)
    throw UsageError(fmt::format("the batch is {}, but must be at least 1", o.batch));
  return o;
}

// Inputs and targets of one window; a target of -1 is not scored.
void fill_window(std::span<const std::uint8_t> text, const EvalWindow& window,
                 std::span<std::int32_t> inputs, std::span<std::int32_t> targets) {
  for (std::int64_t p = window.begin; p < window.end; ++p) {
    const auto i = static_cast<std::size_t>(p - window.begin);
    const auto position = static_cast<std::size_t>(p);
    inputs[i] = p == 0 ? 0 : text[position - 1];
    targets[i] = p < window.first_scored ? -1 : text[position];
  }
}

}  // namespace

std::vector<EvalWindow> plan_windows(std::int64_t bytes, std::int64_t context,
                                     std::int64_t stride) {
  BITNET_CHECK(bytes >= 0 && stride >= 1 && stride <= context, "{} bytes, context {}, stride {}",
               bytes, context, stride);
  std::vector<EvalWindow> windows;
  for (std::int64_t scored = 0; scored < bytes;) {
    const std::int64_t end = std::min(bytes, scored == 0 ? context : scored + stride);
    windows.push_back({std::max<std::int64_t>(0, end - context), end, scored});
    scored = end;
  }
  return windows;
}

EvalResult evaluate(Transformer& model, std::span<const std::uint8_t> text,
                    const EvalOptions& options) {
  if (text.empty()) throw Error("there is nothing to evaluate: the text is empty");
  const EvalOptions o = resolve(options, model.config());
  const auto start = std::chrono::steady_clock::now();

  const auto bytes = static_cast<std::int64_t>(text.size());
  const std::vector<EvalWindow> windows = plan_windows(bytes, o.context, o.stride);
  const auto window_count = static_cast<std::int64_t>(windows.size());
  const std::int64_t length = windows.front().end;  // of every window
  const std::int64_t batch = std::min(o.batch, window_count);

  Backend& backend = model.backend();
  Activations activations(backend, model.config(), batch, length, Keep::nothing);
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

  result.bytes = bytes;
  const double nats_per_byte = result.nats / static_cast<double>(bytes);
  result.bits_per_byte = nats_per_byte / std::numbers::ln2;
  result.perplexity = std::exp(nats_per_byte);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.tokens_per_second = static_cast<double>(bytes) / std::max(result.seconds, 1e-9);
  return result;
}

}  // namespace bitnet
