// SPDX-License-Identifier: MIT
#include "core/generate/generator.h"

#include <algorithm>
#include <chrono>

#include "core/generate/stop_matcher.h"

namespace bitnet {
namespace {

// Prompt tokens computed at once: bounds the activations' memory.
constexpr std::int64_t kPrefillTokens = 512;
constexpr std::int32_t kEndOfDocument = 0;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::int64_t generator_bytes(Backend& backend, const ModelConfig& config, DType kv_cache) {
  const std::int64_t context = config.max_position_embeddings,
                     of_token = Activations(backend, config, 1, 1, Keep::nothing).bytes();
  return kv_cache_bytes(config, context, kv_cache) + std::min(context, kPrefillTokens) * of_token;
}

Generator::Generator(Transformer& model, const GenerateOptions& options)
    : model_(model),
      options_(options),
      sampler_(options.sampler),
      context_(model.config().max_position_embeddings),
      cache_(model.backend(), model.config(), context_, options.kv_cache),
      logits_(static_cast<std::size_t>(kByteValues)) {
  model.config().require_byte_vocabulary();
  if (options_.max_new_tokens < 0)
    throw UsageError(
        fmt::format("max_new_tokens is {}, but must be 0 or more", options_.max_new_tokens));
  StopMatcher check_stop_strings(options_.stop);
}

void Generator::reserve(std::int64_t tokens) {
  tokens = std::min(tokens, kPrefillTokens);
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
      const TensorView bytes(logits.raw(), logits.dtype(),
                             {kByteValues});  // others are never chosen
      model_.backend().copy_to_host(bytes, logits_.data());
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
  GenerateStats stats;
  StopMatcher stops(options_.stop);
  cache_.clear();
  history_.assign(1, kEndOfDocument);
  for (const char c : prompt) history_.push_back(static_cast<std::uint8_t>(c));

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
    if (token == kEndOfDocument && options_.stop_at_end_of_document) {
      stats.reason = StopReason::end_of_document;
      break;
    }
    std::string certain;
    const char byte = static_cast<char>(static_cast<std::uint8_t>(token));
    const bool stopped = stops.feed({&byte, 1}, certain);
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
