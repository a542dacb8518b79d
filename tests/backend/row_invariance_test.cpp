// SPDX-License-Identifier: MIT
// What must not change a single bit of a row's forward result: the other rows of a batch, their
// number, how many queries are given at once, keys to come.
#include <algorithm>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using Floats = std::vector<float>;

Tensor random_tensor(Backend& backend, const Shape& shape, std::uint32_t seed,
                     double deviation = 1.0) {
  return test::to_device(backend, shape, test::random_numbers(seed, shape.elements(), deviation));
}

Tensor empty_tensor(Backend& backend, const Shape& shape) {
  return backend.make_tensor(DType::f32, shape);
}

Floats rows_of(const Floats& x, std::int64_t first, std::int64_t count, std::int64_t width) {
  return {x.begin() + first * width, x.begin() + (first + count) * width};
}

// The forward operations that work by rows, on some of the rows of one input.
class RowOperations {
 public:
  static constexpr std::int64_t kRows = 70, kInputs = 192, kOutputs = 68;

  explicit RowOperations(Backend& backend)
      : be_(backend),
        x_(random_tensor(be_, {kRows, kInputs}, 1)),
        up_(random_tensor(be_, {kRows, kInputs}, 2)),
        residual_(random_tensor(be_, {kRows, kOutputs}, 3)),
        gain_(random_tensor(be_, {kInputs}, 4)),
        w_(random_tensor(be_, {kOutputs, kInputs}, 5)),
        table_(random_tensor(be_, {kRows, kInputs}, 6)),
        tokens_(test::to_device(be_, {kRows}, test::random_tokens(7, kRows, kOutputs))),
        packed_(be_.make_tensor(DType::u8, {kOutputs / 4, kInputs})),
        grouped_(be_.make_tensor(DType::u8, {kOutputs / 4, kInputs})),
        scale_(empty_tensor(be_, {1})),
        group_scale_(empty_tensor(be_, {kOutputs, kInputs / 64})),
        w_codes_(be_.make_tensor(DType::i8, {kOutputs, kInputs})),
        w_scale_(empty_tensor(be_, {kOutputs})) {
    be_.quantize_weights({}, w_, packed_, scale_, {});
    be_.quantize_weights({LinearKind::b158, ScaleMeasure::absmean, 64}, w_, grouped_, group_scale_,
                         {});
    be_.quantize_activations(w_, w_codes_, w_scale_);
  }

  struct Result {
    const char* name;
    Floats values;  // [count, width]
  };
  // Of rows [first, first + count).
  std::vector<Result> run(std::int64_t first, std::int64_t count) {
    results_.clear();
    const ConstTensorView x = x_.view().rows(first, count), up = up_.view().rows(first, count),
                          residual = residual_.view().rows(first, count),
                          tokens = tokens_.view().rows(first, count);
    Tensor wide = empty_tensor(be_, {count, kInputs}),
           narrow = empty_tensor(be_, {count, kOutputs}),
           codes = be_.make_tensor(DType::i8, {count, kInputs}),
           act_scale = empty_tensor(be_, {count}), stats = empty_tensor(be_, {count, 2}),
           loss = empty_tensor(be_, {count}), grouped_y = empty_tensor(be_, {count, kOutputs});
    const auto keep_codes = [&](const char* name) {
      be_.dequantize_activations(codes, act_scale, wide);
      keep(name, wide);
    };
    be_.embedding(tokens, w_, wide);
    keep("embedding", wide);
    be_.quantize_activations(x, codes, act_scale);
    keep_codes("quantize_activations");
    be_.bit_linear(codes, act_scale,
                   std::vector<BitLinearProduct>{{packed_, scale_, narrow, residual},
                                                 {grouped_, group_scale_, grouped_y, {}}});
    keep("bit_linear", narrow);
    keep("bit_linear, groups", grouped_y);
    be_.bit_linear(codes, act_scale, {packed_, scale_, narrow, {}});
    keep("bit_linear alone", narrow);
    be_.int8_linear(codes, act_scale, w_codes_, w_scale_, narrow);
    keep("int8_linear", narrow);
    be_.linear(x, w_, narrow);
    keep("linear", narrow);
    be_.cross_entropy(narrow, tokens, loss, 0.5f, narrow);
    keep("cross_entropy", loss);
    keep("cross_entropy's gradient", narrow);
    for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
      const NormArguments norm{kind, gain_, 1e-5f};
      be_.norm(kind, x, gain_, 1e-5f, wide, stats);
      keep("norm", wide);
      be_.norm_quantize(norm, x, codes, act_scale, stats);
      keep_codes("norm_quantize");
      be_.gated_activation_quantize(Activation::silu, x, up, norm, codes, act_scale, stats);
      keep_codes("gated_activation_quantize");
    }
    be_.gated_activation(Activation::gelu, x, up, wide);
    keep("gated_activation", wide);
    be_.copy(x, wide);
    be_.rope(wide.view().reshaped({1, count, kInputs / 64, 64}),
             table_.view().reshaped({kRows * kInputs / 64, 64}), first, RopeDirection::forward);
    keep("rope", wide);
    return results_;
  }

 private:
  void keep(const char* name, ConstTensorView x) {
    results_.push_back({name, test::floats_of(be_, x)});
  }

  Backend& be_;
  Tensor x_, up_, residual_, gain_, w_, table_, tokens_, packed_, grouped_, scale_, group_scale_,
      w_codes_, w_scale_;
  std::vector<Result> results_;
};

TEST_CASE("a row has the same bits alone and in a batch of any size, in every forward operation") {
  const auto be = test::generated_backend().make();
  RowOperations operations(*be);
  const std::int64_t rows = RowOperations::kRows;
  const auto all = operations.run(0, rows);
  // Around where a backend chooses another way: 8 and 16 rows, a tile of 64.
  for (const std::int64_t count : {1, 5, 9, 17, 66}) {
    for (const std::int64_t first : {std::int64_t{0}, std::int64_t{3}, rows - count}) {
      const auto some = operations.run(first, count);
      for (std::size_t i = 0; i < all.size(); ++i) {
        INFO(all[i].name << " of rows " << first << " to " << first + count);
        const auto width = static_cast<std::int64_t>(all[i].values.size()) / rows;
        CHECK((some[i].values == rows_of(all[i].values, first, count, width)));
      }
    }
  }
}

TEST_CASE("attention gives the same bits for a prompt at once, in pieces and token by token") {
  const test::TestBackend b = test::generated_backend();
  const auto be = b.make();
  const std::int64_t tokens = 150, room = 160, heads = 2, head_dim = 32, width = heads * head_dim;
  const Shape shape{1, tokens, heads, head_dim}, cache{room, heads, head_dim};
  Tensor q = random_tensor(*be, shape, 32), k = random_tensor(*be, shape, 33),
         v = random_tensor(*be, shape, 34);
  const Tensor table = random_tensor(*be, {tokens, head_dim}, 35);
  Tensor keys = empty_tensor(*be, cache), values = empty_tensor(*be, cache);
  const std::int64_t piece = GENERATE(1, 7, 64, 100);
  if (piece <= b.few_queries) return;  // computed another way than the whole
  const auto rows = [&](const TensorView& x, std::int64_t first, std::int64_t count) {
    return x.reshaped({x.elements() / width, width})
        .rows(first, count)
        .reshaped({1, count, heads, head_dim});
  };
  Floats out;
  for (std::int64_t first = 0; first < tokens; first += piece) {
    const std::int64_t count = std::min(piece, tokens - first), seen = first + count;
    Tensor part = empty_tensor(*be, {1, count, heads, head_dim});
    be->cached_attention({.queries = count,
                          .keys = seen,
                          .heads = heads,
                          .kv_heads = heads,
                          .head_dim = head_dim,
                          .first_position = first,
                          .capacity = room},
                         rows(q, first, count), rows(k, first, count), rows(v, first, count), table,
                         keys, values, part);
    const Floats numbers = test::floats_of(*be, part);
    out.insert(out.end(), numbers.begin(), numbers.end());
  }
  Tensor whole = empty_tensor(*be, shape);  // q and k are rotated by now
  be->attention({1, tokens, tokens, heads, heads, head_dim, 0}, q, k, v, whole, {});
  CHECK(out == test::floats_of(*be, whole));
}

TEST_CASE("grouped-query attention equals attention with repeated key and value heads") {
  const auto be = test::generated_backend().make();
  const std::int64_t tokens = 80, heads = 6, groups = 2, head_dim = 16;
  const Shape q_shape{1, tokens, heads, head_dim}, kv_shape{1, tokens, groups, head_dim};
  const auto repeated = [&](const std::vector<double>& x) {
    std::vector<double> y;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto from = x.begin() + (t * groups + h / (heads / groups)) * head_dim;
        y.insert(y.end(), from, from + head_dim);
      }
    }
    return y;
  };
  const auto k = test::random_numbers(36, kv_shape.elements()),
             v = test::random_numbers(37, kv_shape.elements());
  Tensor q = random_tensor(*be, q_shape, 35), grouped = empty_tensor(*be, q_shape),
         full = empty_tensor(*be, q_shape);
  be->attention({1, tokens, tokens, heads, groups, head_dim, 0}, q,
                test::to_device(*be, kv_shape, k), test::to_device(*be, kv_shape, v), grouped, {});
  be->attention({1, tokens, tokens, heads, heads, head_dim, 0}, q,
                test::to_device(*be, q_shape, repeated(k)),
                test::to_device(*be, q_shape, repeated(v)), full, {});
  CHECK(test::floats_of(*be, grouped) == test::floats_of(*be, full));
}

TEST_CASE("changing a key and a value leaves earlier outputs untouched, bit for bit") {
  const auto be = test::generated_backend().make();
  const std::int64_t tokens = 70, head_dim = 16;
  const std::int64_t changed = GENERATE(0, 5, 15, 16, 63, 64, 69);
  const Shape shape{1, tokens, 1, head_dim};
  Tensor q = random_tensor(*be, shape, 38), k = random_tensor(*be, shape, 39),
         v = random_tensor(*be, shape, 40);
  Tensor out = empty_tensor(*be, shape);
  const auto attend = [&] {
    be->attention({1, tokens, tokens, 1, 1, head_dim, 0}, q, k, v, out, {});
    return test::floats_of(*be, out);
  };
  const Floats before = attend();
  for (Tensor* t : {&k, &v}) {
    const TensorView place = t->view().reshaped({shape.elements()}).rows(changed * head_dim, 1);
    const float other = test::floats_of(*be, place)[0] + 1.0f;
    be->copy_from_host(&other, place);
  }
  const Floats after = attend();
  CHECK(rows_of(after, 0, changed, head_dim) == rows_of(before, 0, changed, head_dim));
  for (std::int64_t t = changed; t < tokens; ++t) {
    CHECK(rows_of(after, t, 1, head_dim) != rows_of(before, t, 1, head_dim));
  }
}

}  // namespace
}  // namespace bitnet
