// SPDX-License-Identifier: MIT
// Generation with tokens that are no bytes.
#include <algorithm>

#include "core/cpu/cpu_backend.h"
#include "core/generate/generator.h"
#include "tests/support/catch.h"
#include "tests/support/pair_tokenizer.h"

using namespace bitnet;

namespace {

constexpr std::int64_t kContext = 16;

struct TokenModel {
  explicit TokenModel(std::int64_t vocabulary = 512)
      : backend(make_cpu_backend(1)), model(*backend, config(vocabulary), WeightForm::latent) {
    model.initialize(11);
    model.refresh_quantized();
  }
  static ModelConfig config(std::int64_t vocabulary) {
    ModelConfig config;
    config.vocab_size = vocabulary;
    config.hidden_size = 64;
    config.intermediate_size = 64;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 2;
    config.max_position_embeddings = kContext;
    config.initializer_range = 0.5;
    config.tie_word_embeddings = false;
    return config;
  }
  std::unique_ptr<Backend> backend;
  Transformer model;
};

GenerateOptions tokens(std::int64_t count) {
  GenerateOptions options;
  options.max_new_tokens = count;
  options.stop_at_end_of_document = false;
  return options;
}

std::string text(Transformer& model, const GenerateOptions& options, std::string_view prompt,
                 GenerateStats* stats = nullptr,
                 const std::shared_ptr<const Tokenizer>& tokenizer = test::pair_tokenizer()) {
  Generator generator(model, options, tokenizer);
  std::string out;
  const GenerateStats result =
      generator.generate(prompt, [&](std::string_view bytes) { out += bytes; });
  if (stats != nullptr) *stats = result;
  return out;
}

// The ids that Generator is defined to write after these, by a whole forward pass for each.
std::vector<std::int32_t> reference(TokenModel& tiny, const GenerateOptions& options,
                                    std::vector<std::int32_t> history, std::size_t choices) {
  const Sampler sampler(options.sampler);
  Activations activations(*tiny.backend, tiny.model.config(), 1, kContext, Keep::nothing, false,
                          DType::f32, options.kv_cache);
  const auto vocabulary = static_cast<std::size_t>(tiny.model.config().vocab_size);
  std::vector<std::int32_t> written;
  auto seen = static_cast<std::int64_t>(history.size());
  for (std::int64_t i = 0; i < options.max_new_tokens; ++i, ++seen) {
    if (seen > kContext) seen = kContext / 2;
    Tensor input = tiny.backend->make_tensor(DType::i32, {1, seen});
    tiny.backend->copy_from_host(
        history.data() + (static_cast<std::int64_t>(history.size()) - seen), input);
    const TensorView logits = tiny.model.forward(input, activations);
    std::vector<float> last(vocabulary);
    tiny.backend->copy_to_host(logits.rows(seen - 1, 1), last.data());
    last.resize(choices);
    history.push_back(sampler.sample(last, history, static_cast<std::uint64_t>(i)));
    written.push_back(history.back());
  }
  return written;
}

// Ids after the start and the prompt, as bytes.
std::string reference_text(TokenModel& tiny, const GenerateOptions& options,
                           std::string_view prompt) {
  const test::PairTokenizer tokenizer;
  std::vector<std::int32_t> history = tokenizer.encode(prompt, {});
  history.insert(history.begin(), test::PairTokenizer::kStart);
  return tokenizer.decode(reference(tiny, options, history, 512));
}

}  // namespace

TEST_CASE("text in tokens equals that of whole forward passes, past the context length too") {
  TokenModel tiny;
  const GenerateOptions options = tokens(40);
  for (const std::string prompt : {"", "abc", "a prompt that is longer than the context of 16"})
    CHECK(text(tiny.model, options, prompt) == reference_text(tiny, options, prompt));
}

TEST_CASE("ids of the model that its tokenizer does not have are never written") {
  TokenModel wide(4160);
  const GenerateOptions options = tokens(30);
  CHECK(text(wide.model, options, "abc") == reference_text(wide, options, "abc"));
}

TEST_CASE("a prompt counts in tokens, with the one that begins a document") {
  TokenModel tiny;
  GenerateStats stats;
  text(tiny.model, tokens(1), "abcdef!", &stats);  // <start> ab cd ef !
  CHECK(stats.prompt_tokens == 5);
  text(tiny.model, tokens(1), "abcdef!", &stats, test::pair_tokenizer(false));
  CHECK(stats.prompt_tokens == 4);
  CHECK_THROWS_WITH(text(tiny.model, tokens(1), "", nullptr, test::pair_tokenizer(false)),
                    Catch::Contains("the prompt is empty"));
}

TEST_CASE("a prompt of tokens is taken as it is") {
  TokenModel tiny;
  Generator generator(tiny.model, tokens(20), test::pair_tokenizer());
  std::string out;
  const std::vector<std::int32_t> prompt = {511, 300, 510, 65};
  const GenerateStats stats =
      generator.generate(prompt, [&](std::string_view bytes) { out += bytes; });
  CHECK(stats.prompt_tokens == 4);
  CHECK(out == test::PairTokenizer().decode(reference(tiny, tokens(20), prompt, 512)));
}

TEST_CASE("the tokenizer's end tokens end the text, and those of the options too") {
  TokenModel tiny;
  const std::vector<std::int32_t> written =
      reference(tiny, tokens(30), {test::PairTokenizer::kStart, 'a'}, 512);
  GenerateOptions options = tokens(30);
  options.stop_at_end_of_document = true;
  const auto stopped_at = [&](std::int32_t id) {
    return static_cast<std::int64_t>(std::find(written.begin(), written.end(), id) -
                                     written.begin());
  };
  options.end_tokens = {written[12], written[20]};
  GenerateStats stats;
  const std::string cut = text(tiny.model, options, "a", &stats);
  const std::int64_t expected = std::min(
      {stopped_at(written[12]), stopped_at(written[20]), stopped_at(test::PairTokenizer::kEnd)});
  CHECK(stats.reason == StopReason::end_of_document);
  CHECK(stats.generated_tokens == expected + 1);
  CHECK(cut ==
        test::PairTokenizer().decode(std::span(written).first(static_cast<std::size_t>(expected))));
  options.stop_at_end_of_document = false;
  text(tiny.model, options, "a", &stats);
  CHECK(stats.reason == StopReason::length);
}

TEST_CASE("a stop string may begin and end within tokens") {
  TokenModel tiny;
  const std::string whole = text(tiny.model, tokens(40), "abc");
  REQUIRE(whole.size() > 45);  // pairs among them
  for (const std::size_t begin : {5, 6, 17}) {
    GenerateOptions options = tokens(40);
    options.stop = {whole.substr(begin, 7)};
    GenerateStats stats;
    CHECK(text(tiny.model, options, "abc", &stats) == whole.substr(0, whole.find(options.stop[0])));
    CHECK(stats.reason == StopReason::stop_string);
  }
}

TEST_CASE("a tokenizer with more ids than the model has is refused") {
  TokenModel narrow(320);
  CHECK_THROWS_WITH(Generator(narrow.model, tokens(1), test::pair_tokenizer()),
                    Catch::Contains("model.vocab_size is 320"));
}
