// SPDX-License-Identifier: MIT
#include "core/generate/generator.h"

#include <algorithm>
#include <chrono>

#include "core/generate/stop_matcher.h"

namespace bitnet {
namespace {

// Prompt tokens computed at once: bounds the activations' memory, of which the logits of a large
// vocabulary would be nearly all (64 MiB of them).
std::int64_t prefill_tokens(const ModelConfig& config) {
  constexpr std::int64_t kTokens = 512, kLogits = std::int64_t{1} << 24;
  return std::clamp<std::int64_t>(kLogits / config.vocab_size, 16, kTokens);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::int64_t generator_bytes(Backend& backend, const ModelConfig& config, DType kv_cache) {
  const std::int64_t context = config.max_position_embeddings,
                     of_token = Activations(backend, config, 1, 1, Keep::nothing).bytes();
  return kv_cache_bytes(config, context, kv_cache) +
         std::min(context, prefill_tokens(config)) * of_token;
}

Generator::Generator(Transformer& model, const GenerateOptions& options,
                     std::shared_ptr<const Tokenizer> tokenizer)
    : model_(model),
      options_(options),
      tokenizer_(std::move(tokenizer)),
      sampler_(options.sampler),
      context_(model.config().max_position_embeddings),
      cache_(model.backend(), model.config(), context_, options.kv_cache),
      logits_(static_cast<std::size_t>(tokenizer_->vocab_size())) {
  model.config().require_token_ids(tokenizer_->vocab_size());
  if (options_.max_new_tokens < 0)
    throw UsageError(
        fmt::format("max_new_tokens is {}, but must be 0 or more", options_.max_new_tokens));
  StopMatcher check_stop_strings(options_.stop);
}

void Generator::reserve(std::int64_t tokens) {
  tokens = std::min(tokens, prefill_tokens(model_.config()));
  if (activations_ != nullptr && activations_->max_tokens >= tokens) return;
  activations_.reset();  // first, so that there are never two
  activations_ =
      std::make_unique<Activations>(model_.backend(), model_.config(), 1, tokens, Keep::nothing);
  tokens_ = model_.backend().make_tensor(DType::i32, {tokens});
}

void Generator::extend(std::span<const std::int32_t> tokens) {
  reserve(static_cast<std::int64_t>(tokens.size()));
  const auto chunk = static_cast<std::size_t>(tokens_.elements());
  while (!tokens.empty()) {
    const auto part = tokens.first(std::min(tokens.size(), chunk));
    const auto count = static_cast<std::int64_t>(part.size());
    const TensorView row = tokens_.view().rows(0, count).reshaped({1, count});
    model_.backend().copy_from_host(part.data(), row);
    const TensorView logits = model_.extend(row, cache_, *activations_);
    tokens = tokens.subspan(part.size());
    if (tokens.empty()) {
      const auto choices = static_cast<std::int64_t>(logits_.size());  // others are never chosen
      model_.backend().copy_to_host(TensorView(logits.raw(), logits.dtype(), {choices}),
                                    logits_.data());
    }
  }
}

void Generator::advance(std::int64_t added) {
  if (cache_.length() + added > context_) {
    cache_.clear();
    added = std::max<std::int64_t>(1, context_ / 2);
  }
  extend(std::span(history_).last(static_cast<std::size_t>(added)));
}

GenerateStats Generator::generate(std::string_view prompt, const Emit& emit) {
  std::vector<std::int32_t> tokens = tokenizer_->encode(prompt);
  if (const auto start = tokenizer_->document_start()) tokens.insert(tokens.begin(), *start);
  return generate(std::move(tokens), emit);
}

GenerateStats Generator::generate(std::vector<std::int32_t> prompt, const Emit& emit) {
  if (prompt.empty())
    throw UsageError(
        "the prompt is empty, and this model has no token that begins a text; give it a prompt");
  GenerateStats stats;
  StopMatcher stops(options_.stop);
  const auto is_end = [this, ends = tokenizer_->end_tokens()](std::int32_t token) {
    const auto& more = options_.end_tokens;
    return std::find(ends.begin(), ends.end(), token) != ends.end() ||
           std::find(more.begin(), more.end(), token) != more.end();
  };
  cache_.clear();
  history_ = std::move(prompt);

  auto start = std::chrono::steady_clock::now();
  advance(static_cast<std::int64_t>(history_.size()));
  stats.prompt_tokens = cache_.length();
  stats.dropped_tokens = static_cast<std::int64_t>(history_.size()) - stats.prompt_tokens;
  stats.prompt_seconds = seconds_since(start);

  start = std::chrono::steady_clock::now();
  while (stats.generated_tokens < options_.max_new_tokens) {
    const std::int32_t token =
        sampler_.sample(logits_, history_, static_cast<std::uint64_t>(stats.generated_tokens));
    ++stats.generated_tokens;
    if (options_.stop_at_end_of_document && is_end(token)) {
      stats.reason = StopReason::end_of_document;
      break;
    }
    std::string certain;
    const bool stopped = stops.feed(tokenizer_->token_bytes(token), certain);
    if (!certain.empty()) emit(certain);
    if (stopped) {
      stats.reason = StopReason::stop_string;
      break;
    }
    history_.push_back(token);
    if (stats.generated_tokens < options_.max_new_tokens) advance(1);
  }
  const std::string rest = stops.finish();
  if (!rest.empty()) emit(rest);
  stats.generate_seconds = seconds_since(start);
  return stats;
}

}  // namespace bitnet
