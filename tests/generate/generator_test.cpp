// SPDX-License-Identifier: MIT
#include "core/generate/generator.h"

#include <algorithm>

#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

constexpr std::int64_t kContext = 16;

struct TinyModel {
  TinyModel() : backend(make_cpu_backend(1)), model(*backend, config(), WeightForm::latent) {
    model.initialize(11);
  }
  static ModelConfig config() {
    ModelConfig config;
    config.hidden_size = 64;
    config.intermediate_size = 64;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 2;
    config.max_position_embeddings = kContext;
    config.initializer_range = 0.5;
    config.tie_word_embeddings = false;  // else the last token is mostly repeated
    return config;
  }
  std::unique_ptr<Backend> backend;
  Transformer model;
};

// Past any byte 0, so that lengths are certain.
GenerateOptions tokens(std::int64_t count) {
  GenerateOptions options;
  options.max_new_tokens = count;
  options.stop_at_end_of_document = false;
  return options;
}

std::string text(Transformer& model, const GenerateOptions& options, std::string_view prompt,
                 GenerateStats* stats = nullptr) {
  Generator generator(model, options);
  std::string out;
  const GenerateStats result =
      generator.generate(prompt, [&](std::string_view bytes) { out += bytes; });
  if (stats != nullptr) *stats = result;
  return out;
}

// What Generator is defined to write, without a cache: a whole forward pass for each token.
std::string reference_text(TinyModel& tiny, const GenerateOptions& options,
                           std::string_view prompt) {
  std::vector<std::int32_t> history = {0};
  for (const char c : prompt) history.push_back(static_cast<std::uint8_t>(c));
  const Sampler sampler(options.sampler);
  Activations activations(*tiny.backend, tiny.model.config(), 1, kContext, Keep::nothing, false,
                          DType::f32, options.kv_cache);
  std::string out;
  std::int64_t seen = static_cast<std::int64_t>(history.size());
  for (std::int64_t i = 0; i < options.max_new_tokens; ++i) {
    if (seen > kContext) seen = kContext / 2;
    Tensor input = tiny.backend->make_tensor(DType::i32, {1, seen});
    tiny.backend->copy_from_host(
        history.data() + (static_cast<std::int64_t>(history.size()) - seen), input);
    const TensorView logits = tiny.model.forward(input, activations);
    std::vector<float> last(256);
    tiny.backend->copy_to_host(logits.rows(seen - 1, 1), last.data());
    const std::int32_t token = sampler.sample(last, history, static_cast<std::uint64_t>(i));
    history.push_back(token);
    out += static_cast<char>(static_cast<std::uint8_t>(token));
    ++seen;
  }
  return out;
}

}  // namespace

TEST_CASE("the cached text equals that of whole forward passes, past the context length too") {
  TinyModel tiny;
  GenerateOptions options = tokens(60);
  options.kv_cache = GENERATE(DType::f16, DType::f32);
  for (const std::string prompt :
       {"", "abc", "exactly fifteen", "sixteen and more", "much longer than the context is"})
    CHECK(text(tiny.model, options, prompt) == reference_text(tiny, options, prompt));
}

TEST_CASE("a prompt longer than the context counts as its last half context") {
  TinyModel tiny;
  GenerateStats stats;
  text(tiny.model, tokens(1), "0123456789abcde", &stats);  // with byte 0 it just fits
  CHECK(stats.prompt_tokens == 16);
  CHECK(stats.dropped_tokens == 0);
  text(tiny.model, tokens(1), "0123456789abcdef", &stats);
  CHECK(stats.prompt_tokens == 8);
  CHECK(stats.dropped_tokens == 9);
}

TEST_CASE("a generator's texts are independent of each other") {
  TinyModel tiny;
  Generator generator(tiny.model, tokens(20));
  std::string first, between, again;
  generator.generate("abc", [&](std::string_view bytes) { first += bytes; });
  generator.generate("something else", [&](std::string_view bytes) { between += bytes; });
  generator.generate("abc", [&](std::string_view bytes) { again += bytes; });
  CHECK(first == again);
  CHECK(first != between);
  CHECK(first.size() == 20);
}

TEST_CASE("a longer prompt after a shorter one, and the other way round, changes no text") {
  TinyModel tiny;
  Generator generator(tiny.model, tokens(20));
  for (const std::string prompt : {"a", "a longer one", "b"}) {
    std::string out;
    generator.generate(prompt, [&](std::string_view bytes) { out += bytes; });
    CHECK(out == text(tiny.model, tokens(20), prompt));
  }
}

TEST_CASE("a stop string ends the text before it, wherever it falls") {
  TinyModel tiny;
  const std::string whole = text(tiny.model, tokens(40), "abc");
  GenerateOptions options = tokens(40);
  options.stop = {"never, never", whole.substr(10, 4)};
  GenerateStats stats;
  const std::string cut = text(tiny.model, options, "abc", &stats);
  CHECK(cut == whole.substr(0, whole.find(whole.substr(10, 4))));
  CHECK(stats.reason == StopReason::stop_string);
  CHECK(stats.generated_tokens == static_cast<std::int64_t>(cut.size()) + 4);
}

TEST_CASE("text held back for a stop string that never comes is given out at the end") {
  TinyModel tiny;
  const std::string whole = text(tiny.model, tokens(12), "abc");
  GenerateOptions options = tokens(12);
  options.stop = {whole.substr(8) + "?"};
  GenerateStats stats;
  CHECK(text(tiny.model, options, "abc", &stats) == whole);
  CHECK(stats.reason == StopReason::length);
}

TEST_CASE("byte 0 ends the text unless told otherwise") {
  TinyModel tiny;
  Parameter& head = tiny.model.parameters().at("lm_head.weight");
  auto weights = head.value.as<float>();
  std::fill(weights.begin(), weights.end(), 0.0f);  // all logits equal: greedy takes token 0
  GenerateOptions options = tokens(5);
  options.sampler.greedy = true;
  CHECK(text(tiny.model, options, "abc") == std::string(5, '\0'));
  options.stop_at_end_of_document = true;
  GenerateStats stats;
  CHECK(text(tiny.model, options, "abc", &stats).empty());
  CHECK(stats.reason == StopReason::end_of_document);
  CHECK(stats.generated_tokens == 1);
}

TEST_CASE("no tokens asked for, none written") {
  TinyModel tiny;
  GenerateStats stats;
  CHECK(text(tiny.model, tokens(0), "abc", &stats).empty());
  CHECK(stats.generated_tokens == 0);
}

TEST_CASE("token ids past the bytes are never written") {
  TinyModel tiny;
  ModelConfig config = TinyModel::config();
  config.vocab_size = 320;
  Transformer wide(*tiny.backend, config, WeightForm::latent);
  wide.initialize(1);
  for (Parameter& p : wide.parameters().all()) {
    const auto from = tiny.model.parameters().at(p.spec.name).value.as<float>();
    std::copy(from.begin(), from.end(), p.value.as<float>().begin());
  }
  wide.refresh_quantized();
  // As likely as byte 97, and 64 of them.
  const auto head = wide.parameters().at("lm_head.weight").value.as<float>();
  const std::size_t row = head.size() / 320;
  for (std::size_t i = 256 * row; i < head.size(); ++i) head[i] = head[97 * row + i % row];
  CHECK(text(wide, tokens(30), "abc") == text(tiny.model, tokens(30), "abc"));
}

TEST_CASE("generation options out of range are refused") {
  TinyModel tiny;
  GenerateOptions options = tokens(-1);
  CHECK_THROWS_AS(Generator(tiny.model, options), UsageError);
  options = tokens(1);
  options.stop = {""};
  CHECK_THROWS_AS(Generator(tiny.model, options), UsageError);
}
