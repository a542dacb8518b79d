// SPDX-License-Identifier: MIT
// Fused operations have the bits of the operations that they stand for, done one after the other.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/backend/attention_checks.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

// No rows, one, and several tasks; widths with and without a tail of lanes.
Shape generated_shape() {
  return GENERATE(Shape{0, 64}, Shape{1, 200}, Shape{70, 256}, Shape{150, 200}, Shape{150, 64});
}

struct Quantized {
  Quantized(Backend& be, const Shape& shape)
      : codes(be.make_tensor(DType::i8, shape)),
        act_scale(be.make_tensor(DType::f32, {shape[0]})),
        stats(be.make_tensor(DType::f32, {shape[0], 2})) {}
  Tensor codes, act_scale, stats;
};

// Equal bits, but for those of a NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y) ||
           (std::isnan(x) && std::isnan(y));
  });
}

void check_equal(Backend& be, const Quantized& a, const Quantized& b) {
  CHECK(test::to_host<std::int8_t>(be, a.codes) == test::to_host<std::int8_t>(be, b.codes));
  CHECK(same(test::floats_of(be, a.act_scale), test::floats_of(be, b.act_scale)));
  CHECK(same(test::floats_of(be, a.stats), test::floats_of(be, b.stats)));
}

struct Operands {
  Tensor random(std::uint32_t seed) const { return random(seed, shape); }
  Tensor random(std::uint32_t seed, const Shape& other) const {
    return test::to_device(backend, other, test::random_numbers(seed, other.elements()));
  }
  Tensor gain(std::uint32_t seed) const { return random(seed, {shape[1]}); }
  Tensor empty() const { return backend.make_tensor(DType::f32, shape); }
  Quantized quantized() const { return {backend, shape}; }
  Backend& backend;
  Shape shape;
};

TEST_CASE("norm_quantize is norm, then quantize_activations") {
  const auto be = test::generated_backend().make();
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Operands make{*be, generated_shape()};
  const Tensor x = make.random(1), gain = make.gain(2);
  for (const bool with_gain : {false, true}) {
    const ConstTensorView gains = with_gain ? gain.view() : ConstTensorView();
    Quantized parts = make.quantized(), fused = make.quantized();
    Tensor y = make.empty();
    be->norm(kind, x, gains, 1e-5f, y, parts.stats);
    be->quantize_activations(y, parts.codes, parts.act_scale);
    be->norm_quantize({kind, gains, 1e-5f}, x, fused.codes, fused.act_scale, fused.stats);
    check_equal(*be, fused, parts);
  }
}

TEST_CASE("gated activations fused with a norm and a quantisation give what all give in turn") {
  const auto be = test::generated_backend().make();
  const auto activation = GENERATE(Activation::silu, Activation::relu2, Activation::gelu);
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Operands make{*be, generated_shape()};
  const Tensor gate = make.random(3), up = make.random(4), gain = make.gain(5), dy = make.random(6);
  for (const bool gated : {false, true}) {
    const ConstTensorView ups = gated ? up.view() : ConstTensorView();
    Tensor h = make.empty(), y = make.empty(), dh = make.empty();
    be->gated_activation(activation, gate, ups, h);
    {
      Quantized parts = make.quantized(), fused = make.quantized();
      be->quantize_activations(h, parts.codes, parts.act_scale);
      be->gated_activation_quantize(activation, gate, ups, {}, fused.codes, fused.act_scale, {});
      check_equal(*be, fused, parts);
    }
    for (const bool with_gain : {false, true}) {
      const NormArguments norm{kind, with_gain ? gain.view() : ConstTensorView(), 1e-5f};
      Quantized parts = make.quantized(), fused = make.quantized();
      be->norm(kind, h, norm.gain, norm.eps, y, parts.stats);
      be->quantize_activations(y, parts.codes, parts.act_scale);
      be->gated_activation_quantize(activation, gate, ups, norm, fused.codes, fused.act_scale,
                                    fused.stats);
      check_equal(*be, fused, parts);

      Tensor dgate = make.empty(), dup = make.empty(), fused_dgate = make.empty(),
             fused_dup = make.empty();
      Tensor dgain = make.gain(7), fused_dgain = make.gain(7);
      const auto gradient = [&](Tensor& t, bool wanted) {
        return wanted ? t.view() : TensorView();
      };
      be->norm_backward(kind, h, norm.gain, parts.stats, dy, dh, false, gradient(dgain, with_gain));
      be->gated_activation_backward(activation, gate, ups, dh, dgate, gradient(dup, gated));
      be->gated_activation_norm_backward(activation, gate, ups, norm, parts.stats, dy, fused_dgate,
                                         gradient(fused_dup, gated),
                                         gradient(fused_dgain, with_gain));
      CHECK(test::floats_of(*be, fused_dgate) == test::floats_of(*be, dgate));
      CHECK(test::floats_of(*be, fused_dup) == test::floats_of(*be, dup));
      CHECK(test::floats_of(*be, fused_dgain) == test::floats_of(*be, dgain));
    }
  }
}

TEST_CASE(
    "a fused row that is not finite has codes of 0 and a scale that is not, others are as ever") {
  const auto be = test::generated_backend().make();
  const float odd =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
               -std::numeric_limits<float>::infinity());
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const std::int64_t bad = 2;
  const Operands make{*be, {5, 200}};
  const Tensor clean = make.random(13), up = make.random(14);
  Tensor x = make.random(13);
  const TensorView in_the_tail =
      x.view().reshaped({make.shape.elements()}).rows(bad * make.shape[1] + 197, 1);
  be->copy_from_host(&odd, in_the_tail);
  const NormArguments norm{kind, {}, 1e-5f};
  const auto check = [&](const auto& operation) {
    Quantized fused = make.quantized(), expected = make.quantized();
    operation(x, fused);
    operation(clean, expected);
    for (std::int64_t row = 0; row < make.shape[0]; ++row) {
      const auto codes = test::to_host<std::int8_t>(*be, fused.codes.view().rows(row, 1));
      const float scale = test::floats_of(*be, fused.act_scale)[std::size_t(row)];
      if (row == bad) {
        CHECK(!std::isfinite(scale));
        CHECK(codes == std::vector<std::int8_t>(codes.size(), 0));
      } else {
        CHECK(scale == test::floats_of(*be, expected.act_scale)[std::size_t(row)]);
        CHECK(codes == test::to_host<std::int8_t>(*be, expected.codes.view().rows(row, 1)));
      }
    }
  };
  check([&](ConstTensorView input, Quantized& q) {
    be->norm_quantize(norm, input, q.codes, q.act_scale, q.stats);
  });
  for (const Activation activation : {Activation::silu, Activation::relu2, Activation::gelu}) {
    INFO("activation " << int(activation));
    // As the ungated value an element of -infinity is one of 0 or NaN: it stands in `up` instead.
    for (const bool with_norm : {false, true}) {
      check([&](ConstTensorView input, Quantized& q) {
        be->gated_activation_quantize(activation, up, input, norm, q.codes, q.act_scale,
                                      with_norm ? q.stats.view() : TensorView());
      });
    }
  }
}

TEST_CASE("the gradients of a gated activation may take the place of dy and of up") {
  const auto be = test::generated_backend().make();
  const auto activation = GENERATE(Activation::silu, Activation::relu2, Activation::gelu);
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Operands make{*be, {70, 200}};
  const Tensor gate = make.random(15), up = make.random(16), dy = make.random(17),
               gain = make.gain(18);
  Tensor h = make.empty(), stats = be->make_tensor(DType::f32, {70, 2}), y = make.empty();
  be->gated_activation(activation, gate, up, h);
  be->norm(kind, h, gain, 1e-5f, y, stats);
  const auto check = [&](const auto& gradients) {
    Tensor dgate = make.empty(), dup = make.empty(), in_dy = make.random(17),
           in_up = make.random(16);
    gradients(up, dy, dgate, dup);
    gradients(in_up, in_dy, in_dy, in_up);
    CHECK(test::floats_of(*be, in_dy) == test::floats_of(*be, dgate));
    CHECK(test::floats_of(*be, in_up) == test::floats_of(*be, dup));
  };
  check([&](ConstTensorView ups, ConstTensorView from, TensorView dgate, TensorView dup) {
    be->gated_activation_backward(activation, gate, ups, from, dgate, dup);
  });
  check([&](ConstTensorView ups, ConstTensorView from, TensorView dgate, TensorView dup) {
    Tensor dgain = make.gain(19);
    be->gated_activation_norm_backward(activation, gate, ups, {kind, gain, 1e-5f}, stats, from,
                                       dgate, dup, dgain);
  });
}

TEST_CASE("attention over what rope_append put into caches is that over rows turned by rope()") {
  const auto be = test::generated_backend().make();
  const std::int64_t tokens = GENERATE(1, 3, 18), kv_heads = 2, first = 14, capacity = 32;
  const std::int64_t heads = kv_heads * GENERATE(1, 3, 17);
  const std::int64_t head_dim = GENERATE(16, 32), all = first + tokens;
  const DType dtype = GENERATE(DType::f32, DType::f16);
  const auto random = [&](std::uint32_t seed, const Shape& shape) {
    return test::to_device(*be, shape, test::random_numbers(seed, shape.elements()));
  };
  const Shape kv_shape{1, all, kv_heads, head_dim}, cache_shape{capacity, kv_heads, head_dim};
  const Tensor table = random(1, {capacity, head_dim}), v = random(4, kv_shape);
  // The rows [from, from + count) of the tokens of x.
  const auto rows_of = [](TensorView x, std::int64_t from, std::int64_t count) {
    const Shape rows{x.dim(1), x.dim(2), x.dim(3)};
    return x.reshaped(rows).rows(from, count).reshaped({1, count, x.dim(2), x.dim(3)});
  };

  const Shape q_shape{1, all, heads, head_dim};
  Tensor q = random(2, q_shape), k = random(3, kv_shape);  // turned by rope()
  be->rope(q, table, 0, RopeDirection::forward);
  be->rope(k, table, 0, RopeDirection::forward);
  Tensor cached_q = random(2, q_shape), cached_k = random(3, kv_shape),
         cached_v = random(4, kv_shape);
  Tensor keys = be->make_tensor(dtype, cache_shape), values = be->make_tensor(dtype, cache_shape);
  for (const auto& [from, count] : {std::pair{std::int64_t{0}, first}, std::pair{first, tokens}}) {
    be->rope_append(rows_of(cached_q, from, count), rows_of(cached_k, from, count),
                    rows_of(cached_v, from, count), table, from, keys, values);
  }
  CHECK(test::floats_of(*be, cached_q) == test::floats_of(*be, q));
  CHECK(test::floats_of(*be, cached_k) == test::floats_of(*be, k));
  CHECK(test::floats_of(*be, cached_v) == test::floats_of(*be, v));

  const auto as_cached = [&](const Tensor& x) {
    Tensor y = be->make_tensor(dtype, kv_shape);
    if (dtype == DType::f32) {
      be->copy(x, y);
    } else {
      be->convert(x, y);
    }
    return y;
  };
  const Tensor plain_k = as_cached(k), plain_v = as_cached(v);
  AttentionShape shape{.queries = tokens,
                       .keys = all,
                       .heads = heads,
                       .kv_heads = kv_heads,
                       .head_dim = head_dim,
                       .first_position = first};
  const TensorView queries = rows_of(q, first, tokens);
  Tensor expected = be->make_tensor(DType::f32, queries.shape()),
         out = be->make_tensor(DType::f32, queries.shape());
  be->attention(shape, queries, plain_k, plain_v, expected, {});
  shape.capacity = capacity;
  be->attention(shape, queries, cached_tokens(shape, keys), cached_tokens(shape, values), out, {});
  CHECK(test::floats_of(*be, out) == test::floats_of(*be, expected));

  // All of it at once.
  Tensor next_q = random(2, q_shape), next_k = random(3, kv_shape), next_v = random(4, kv_shape),
         next_keys = be->make_tensor(dtype, cache_shape),
         next_values = be->make_tensor(dtype, cache_shape),
         next_out = be->make_tensor(DType::f32, queries.shape());
  be->rope_append(rows_of(next_q, 0, first), rows_of(next_k, 0, first), rows_of(next_v, 0, first),
                  table, 0, next_keys, next_values);
  be->cached_attention(shape, rows_of(next_q, first, tokens), rows_of(next_k, first, tokens),
                       rows_of(next_v, first, tokens), table, next_keys, next_values, next_out);
  CHECK(test::floats_of(*be, next_out) == test::floats_of(*be, expected));
  CHECK(test::floats_of(*be, next_q) == test::floats_of(*be, q));
  CHECK(test::floats_of(*be, next_k) == test::floats_of(*be, k));
  const auto bytes_of = [&](const Tensor& x) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(x.bytes()));
    be->copy_to_host(x, bytes.data());
    return bytes;
  };
  CHECK(bytes_of(next_keys) == bytes_of(keys));
  CHECK(bytes_of(next_values) == bytes_of(values));
}

TEST_CASE("cached_attention refuses tensors that do not belong together") {
  const auto be = test::generated_backend().make();
  const std::int64_t tokens = GENERATE(1, 2);
  const auto zeros = [&](const Shape& shape) { return be->make_tensor(DType::f32, shape); };
  Tensor q = zeros({1, tokens, 4, 16}), k = zeros({1, tokens, 2, 16}),
         v = zeros({1, tokens, 2, 16}), table = zeros({16, 16}), keys = zeros({16, 2, 16}),
         values = zeros({16, 2, 16}), out = zeros({1, tokens, 4, 16}), narrow = zeros({16, 2, 32});
  const AttentionShape shape{.queries = tokens,
                             .keys = 3 + tokens,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 16,
                             .first_position = 3,
                             .capacity = 16};
  CHECK_NOTHROW(be->cached_attention(shape, q, k, v, table, keys, values, out));
  const auto refuses = [&](const AttentionShape& s, TensorView cache, TensorView to) {
    CHECK_THROWS_AS(be->cached_attention(s, q, k, v, table, keys, cache, to), ContractError);
  };
  refuses(shape, narrow, out);
  refuses(shape, values, narrow);
  AttentionShape other = shape;
  other.keys = 4 + tokens;
  refuses(other, values, out);
  for (const std::int64_t capacity : {0, 32}) {
    other = shape;
    other.capacity = capacity;
    refuses(other, values, out);
  }
  other = shape;
  other.kv_heads = 4;
  refuses(other, values, out);
  other = shape;
  other.first_position = 14;
  refuses(other, values, out);
}

TEST_CASE("rope_append refuses tensors that do not belong together") {
  const auto be = test::generated_backend().make();
  const auto zeros = [&](const Shape& shape, DType dtype = DType::f32) {
    return be->make_tensor(dtype, shape);
  };
  Tensor q = zeros({1, 2, 4, 16}), k = zeros({1, 2, 2, 16}), v = zeros({1, 2, 2, 16}),
         table = zeros({16, 16}), cache = zeros({16, 2, 16}), values = zeros({16, 2, 16}),
         one = zeros({1, 1, 2, 16}), narrow = zeros({16, 2, 8}),
         half = zeros({16, 2, 16}, DType::f16), ragged = zeros({15, 2, 16});
  CHECK_NOTHROW(be->rope_append(q, k, v, table, 14, cache, values));
  CHECK_THROWS_AS(be->rope_append(q, k, v, table, 15, cache, cache), ContractError);
  CHECK_THROWS_AS(be->rope_append(q, k, v, table, 0, ragged, ragged), ContractError);
  Tensor odd = zeros({1, 2, 3, 16}), none = zeros({1, 2, 0, 16}), no_heads = zeros({16, 0, 16});
  CHECK_THROWS_AS(be->rope_append(odd, k, v, table, 0, cache, values), ContractError);
  CHECK_THROWS_AS(be->rope_append(q, none, none, table, 0, no_heads, no_heads), ContractError);
  CHECK_THROWS_AS(be->rope_append(q, one, one, table, 0, cache, cache), ContractError);
  CHECK_THROWS_AS(be->rope_append(q, k, one, table, 0, cache, cache), ContractError);
  CHECK_THROWS_AS(be->rope_append(q, k, v, table, 0, narrow, narrow), ContractError);
  CHECK_THROWS_AS(be->rope_append(q, k, v, table, 0, cache, half), ContractError);
}

TEST_CASE("an accumulating norm_backward is norm_backward, then add") {
  const auto be = test::generated_backend().make();
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Operands make{*be, generated_shape()};
  const Tensor x = make.random(8), gain = make.gain(9), dy = make.random(10);
  Tensor y = make.empty(), stats = be->make_tensor(DType::f32, {make.shape[0], 2}),
         dx = make.empty(), sum = make.random(11), expected = make.random(11);
  Tensor dgain = make.gain(12), other_dgain = make.gain(12);
  be->norm(kind, x, gain, 1e-5f, y, stats);
  be->norm_backward(kind, x, gain, stats, dy, dx, false, dgain);
  be->add(expected, dx, expected);
  be->norm_backward(kind, x, gain, stats, dy, sum, true, other_dgain);
  CHECK(test::floats_of(*be, sum) == test::floats_of(*be, expected));
  CHECK(test::floats_of(*be, other_dgain) == test::floats_of(*be, dgain));
}

}  // namespace
}  // namespace bitnet
