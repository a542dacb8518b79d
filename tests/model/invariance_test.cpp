// SPDX-License-Identifier: MIT
// What must not change a single bit of the logits: later tokens, neighbours in the batch, the way a
// sequence is cut into calls, repeated key/value heads, the packed form.
#include "core/quant/ternary.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_configs.h"

using namespace bitnet;
using namespace bitnet::test;

namespace {

constexpr std::int64_t kLength = 24;

std::vector<float> rows(const std::vector<float>& logits, std::int64_t first, std::int64_t count) {
  const std::int64_t width = 32;
  return {logits.begin() + first * width, logits.begin() + (first + count) * width};
}

// The logits of each position, the sequence being given in pieces of the listed lengths; of a piece
// only its last is known.
std::vector<std::vector<float>> extend_in_pieces(Transformer& model,
                                                 const std::vector<std::int32_t>& tokens,
                                                 const std::vector<std::int64_t>& pieces,
                                                 DType cache_dtype = DType::f32) {
  Backend& be = model.backend();
  const auto length = static_cast<std::int64_t>(tokens.size());
  Activations activations(be, model.config(), 1, length, Keep::nothing, true);
  KvCache cache(be, model.config(), length, cache_dtype);
  std::vector<std::vector<float>> logits;
  std::int64_t first = 0;
  for (const std::int64_t count : pieces) {
    const std::vector<std::int32_t> piece(tokens.begin() + first, tokens.begin() + first + count);
    logits.push_back(
        floats_of(be, model.extend(to_device(be, {1, count}, piece), cache, activations)));
    first += count;
  }
  return logits;
}

// A sequence of which attention computes all parts in one way.
std::int64_t one_way_length(const TestBackend& b) {
  return b.few_queries == 0 ? kLength : b.few_queries;
}

// How far logits may be apart of which attention took many queries at once for the ones, and few at
// a time for the others. Its rounding of operands moves activations by a few 2^-8, and what is
// rounded to int8 after that by up to a code more.
double apart(const TestBackend& b) { return b.few_queries == 0 ? 0 : 20 * b.operand_rounding; }

}  // namespace

TEST_CASE("a token changes no logits before it", "[model]") {
  const auto backend = default_backend().make();
  for (const ModelConfig& config : tiny_configs()) {
    INFO(describe(config));
    TinyModel model(*backend, config, 1);
    auto tokens = random_tokens(1, kLength, 32);
    const auto before = logits_of(model, tokens, 1);
    for (const std::int64_t t : {std::int64_t{0}, std::int64_t{1}, std::int64_t{11}, kLength - 1}) {
      auto changed = tokens;
      changed[std::size_t(t)] = (changed[std::size_t(t)] + 1) % 32;
      const auto after = logits_of(model, changed, 1);
      CHECK(rows(after, 0, t) == rows(before, 0, t));
      for (std::int64_t later = t; later < kLength; ++later)
        CHECK(rows(after, later, 1) != rows(before, later, 1));
    }
  }
}

TEST_CASE("a sequence has the same logits alone and in any batch", "[model]") {
  const auto backend = default_backend().make();
  for (const ModelConfig& config : tiny_configs()) {
    INFO(describe(config));
    TinyModel model(*backend, config, 1);
    const auto a = random_tokens(1, kLength, 32), b = random_tokens(2, kLength, 32),
               c = random_tokens(3, kLength, 32);
    std::vector<std::int32_t> all;
    for (const auto* sequence : {&c, &a, &b})
      all.insert(all.end(), sequence->begin(), sequence->end());
    const auto together = logits_of(model, all, 3);
    CHECK(rows(together, 0, kLength) == logits_of(model, c, 1));
    CHECK(rows(together, kLength, kLength) == logits_of(model, a, 1));
    CHECK(rows(together, 2 * kLength, kLength) == logits_of(model, b, 1));
  }
}

TEST_CASE("a sequence has the same logits at once, token by token and in pieces", "[model]") {
  const TestBackend b = default_backend();
  const auto backend = b.make();
  for (const ModelConfig& config : tiny_configs()) {
    INFO(describe(config));
    TinyModel model(*backend, config, 1);
    const auto tokens = random_tokens(1, one_way_length(b), 32);
    const auto length = std::int64_t(tokens.size());
    const auto whole = logits_of(model, tokens, 1);
    const std::vector<std::int64_t> singles(tokens.size(), 1);
    for (const auto& pieces : {singles, std::vector<std::int64_t>{length},
                               std::vector<std::int64_t>{7, 1, 1, length - 11, 2}}) {
      const auto logits = extend_in_pieces(model, tokens, pieces);
      std::int64_t end = 0;
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        end += pieces[i];
        INFO("position " << end - 1 << " of " << pieces.size() << " pieces");
        CHECK(logits[i] == rows(whole, end - 1, 1));
      }
    }
  }
}

TEST_CASE("an fp16 cache gives the logits of a forward pass that rounds as it does", "[model]") {
  const TestBackend b = generated_backend();
  const auto backend = b.make();
  const std::int64_t length = one_way_length(b);
  std::vector<ModelConfig> configs = tiny_configs();
  for (const char* linear : {"float", "b158", "b1"}) {
    configs.push_back(tiny_config(linear));
    configs.back().num_key_value_heads = 2;
  }
  for (const ModelConfig& config : configs) {
    INFO(describe(config));
    TinyModel model(*backend, config, 1);
    const auto tokens = random_tokens(1, length, 32);
    const auto one_by_one = extend_in_pieces(
        model, tokens, std::vector<std::int64_t>(std::size_t(length), 1), DType::f16);
    const auto at_once = extend_in_pieces(model, tokens, {length}, DType::f16);
    const auto in_two = extend_in_pieces(model, tokens, {5, length - 5}, DType::f16);
    CHECK(at_once.back() == one_by_one.back());
    CHECK(in_two.back() == one_by_one.back());
    CHECK(in_two.front() == one_by_one[4]);
    const auto whole = logits_of(model, tokens, 1, DType::f16);
    for (std::int64_t t = 0; t < length; ++t)
      CHECK(one_by_one[std::size_t(t)] == rows(whole, t, 1));
    CHECK(one_by_one.back() != extend_in_pieces(model, tokens, {length}).back());
  }
}

TEST_CASE("a model that is larger than every tile keeps its bits too", "[model]") {
  // 450 rows: more than an attention tile (64 keys), a tile of tokens of the CPU's bit_linear (264)
  // and of int8 gradients (256).
  constexpr std::int64_t kLong = 150, kBatch = 3;
  ModelConfig config = tiny_config("b158");
  config.max_position_embeddings = 160;
  config.intermediate_size = 320;
  config.num_key_value_heads = 2;
  const auto tokens = random_tokens(1, kBatch * kLong, 32);
  std::vector<std::vector<float>> all;
  for (const TestBackend& b : {test_backends().front(), test_backends().back()}) {
    INFO(b.name);
    const auto backend = b.make();
    TinyModel model(*backend, config, 1);
    all.push_back(logits_of(model, tokens, kBatch));
    const std::vector<std::int32_t> second(tokens.begin() + kLong, tokens.begin() + 2 * kLong);
    const std::vector<std::int64_t> pieces{63, 1, 1, 70, 15};
    const auto logits = extend_in_pieces(model, second, pieces);
    std::int64_t end = 0;
    bool one_way = true;  // so far
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      end += pieces[i];
      one_way = one_way && pieces[i] > b.few_queries;
      const double distance_to_whole = distance(logits[i], rows(all.back(), kLong + end - 1, 1));
      CHECK(distance_to_whole <= (one_way ? 0 : apart(b)));
    }
  }
  CHECK((all[0] == all[1]));
}

TEST_CASE("grouped key/value heads equal full heads that repeat them", "[model]") {
  const auto backend = default_backend().make();
  Backend& be = *backend;
  for (const std::int64_t kv_heads : {1, 2}) {
    for (const char* linear : {"float", "b158", "b1"}) {
      INFO(linear << " kv heads " << kv_heads);
      ModelConfig config = tiny_config(linear);
      config.num_key_value_heads = kv_heads;
      TinyModel grouped(be, config, 1);
      config.num_key_value_heads = 4;
      const bool quantized = config.quantized();
      // Codes and scale are copied, not made again, so that the scale of the larger matrix cannot
      // round differently.
      Transformer full(be, config, quantized ? WeightForm::packed : WeightForm::latent);
      for (Parameter& p : full.parameters().all()) {
        const Parameter& from = grouped.parameters().at(p.spec.name);
        if (p.packed) be.copy(from.weight_scale, p.weight_scale);
        if (p.spec.shape == from.spec.shape) {
          if (p.value) be.copy(from.value, p.value);
          if (p.packed) be.copy(from.packed, p.packed);
          continue;
        }
        const std::int64_t head = 16 * 64, repeats = 4 / kv_heads;  // elements of a head's rows
        if (quantized) {
          std::vector<std::int8_t> few(std::size_t(kv_heads * head)), many;
          REQUIRE(unpack_codes(to_host<std::uint8_t>(be, from.packed), kv_heads * 16, 64, few));
          for (std::int64_t h = 0; h < 4; ++h)
            many.insert(many.end(), few.begin() + h / repeats * head,
                        few.begin() + (h / repeats + 1) * head);
          std::vector<std::uint8_t> packed(std::size_t(p.packed.elements()));
          pack_codes(many, 64, 64, packed);
          be.copy_from_host(packed.data(), p.packed);
        } else {
          const auto few = floats_of(be, from.value);
          std::vector<float> many;
          for (std::int64_t h = 0; h < 4; ++h)
            many.insert(many.end(), few.begin() + h / repeats * head,
                        few.begin() + (h / repeats + 1) * head);
          be.copy_from_host(many.data(), p.value);
        }
      }
      const auto tokens = random_tokens(1, 2 * kLength, 32);
      CHECK((logits_of(full, tokens, 2) == logits_of(grouped, tokens, 2)));
    }
  }
}

TEST_CASE("the packed form has the logits of the latent form", "[model]") {
  const TestBackend b = generated_backend();
  const auto backend = b.make();
  for (const ModelConfig& config : tiny_configs()) {
    INFO(b.name << " " << describe(config));
    TinyModel latent(*backend, config, 1);
    PackedTwin packed(latent);
    const auto tokens = random_tokens(1, 2 * kLength, 32);
    CHECK((logits_of(packed, tokens, 2) == logits_of(latent, tokens, 2)));
  }
}
