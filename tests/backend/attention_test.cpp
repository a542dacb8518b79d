// SPDX-License-Identifier: MIT
// Attention of every backend, online softmax and all, against the reference's explicit matrix in
// double.
#include <algorithm>
#include <cmath>

#include "core/backend/attention_checks.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

using namespace bitnet;
using namespace bitnet::test;
using reference::Doubles;

namespace {

// Bounds by the sizes of what is summed. Every operand of a product is off by its rounding (out of
// few queries: of nothing), every sum by a rounding a term. A probability is off, relatively, by
// e^x - 1 with x the errors of its own score and of the sum's (at most the largest score's), by up
// to 8 roundings a key (exp, rescaling and adding of the online softmax), and as it is rounded.
struct Bounds {
  Doubles out, dq, dk, dv;
};

Bounds attention_bounds(const TestBackend& backend, const AttentionShape& s, const Doubles& q,
                        const Doubles& k, const Doubles& v, const Doubles& dout) {
  Bounds bound{Doubles(q.size()), Doubles(q.size()), Doubles(k.size()), Doubles(v.size())};
  const auto p = reference::attention_probabilities(s, q, k);
  const auto out = reference::attention(s, q, k, v);
  const double scale = 1 / std::sqrt(double(s.head_dim)), step = backend.sum_rounding;
  const std::int64_t e_count = s.head_dim, group = s.heads / s.kv_heads;
  // Backward rounds its operands however many queries there are.
  const double rounding = backend.operand_rounding,
               rounding_forward = s.queries > backend.few_queries ? rounding : 0;
  const double dot_sum = double(e_count + 8) * step,
               sum = double(8 * s.keys + s.keys * group + 32) * step;
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t t = 0; t < s.queries; ++t) {
        const std::int64_t seen = s.first_position + t + 1;
        const double* row = &p[std::size_t(((b * s.heads + h) * s.queries + t) * s.keys)];
        const auto query = [&](std::int64_t e) {
          return std::size_t(((b * s.queries + t) * s.heads + h) * e_count + e);
        };
        const auto key = [&](std::int64_t j, std::int64_t e) {
          return std::size_t(((b * s.keys + j) * s.kv_heads + h / group) * e_count + e);
        };
        double score = 0;
        Doubles dp(std::size_t(seen), 0.0), dp_size(std::size_t(seen), 0.0);
        for (std::int64_t j = 0; j < seen; ++j) {
          double dot = 0;
          for (std::int64_t e = 0; e < e_count; ++e) {
            const double product = dout[query(e)] * v[key(j, e)];
            dot += std::abs(q[query(e)] * k[key(j, e)]) * scale;
            dp[std::size_t(j)] += product;
            dp_size[std::size_t(j)] += std::abs(product);
          }
          score = std::max(score, dot);
        }
        const auto p_error = [&](double u) {
          return std::expm1(2 * (2.01 * u + dot_sum) * score) + sum;
        };
        const double error_forward = p_error(rounding_forward) + 2.01 * rounding_forward;
        for (std::int64_t j = 0; j < seen; ++j)
          for (std::int64_t e = 0; e < e_count; ++e)
            bound.out[query(e)] += error_forward * row[j] * std::abs(v[key(j, e)]);

        // ds = p (dp - delta), delta = dout · out, of the out that forward gave.
        const double error = p_error(rounding);
        double delta = 0, delta_error = 0;
        for (std::int64_t e = 0; e < e_count; ++e) {
          delta += dout[query(e)] * out[query(e)];
          delta_error +=
              std::abs(dout[query(e)]) * (bound.out[query(e)] + dot_sum * std::abs(out[query(e)]));
        }
        for (std::int64_t j = 0; j < seen; ++j) {
          const double ds = std::abs(row[j] * (dp[std::size_t(j)] - delta));
          const double dp_error =
              (2.01 * rounding + dot_sum) * dp_size[std::size_t(j)] + delta_error;
          const double ds_error =
              (ds * (error + rounding) + row[j] * (1 + error) * dp_error) * (1 + rounding);
          const double dq_error = 1.01 * ds_error + (rounding + sum) * ds;
          for (std::int64_t e = 0; e < e_count; ++e) {
            // 1e-12: probabilities below the range of fp32.
            bound.dq[query(e)] += dq_error * std::abs(k[key(j, e)]) * scale + 1e-12;
            bound.dk[key(j, e)] += dq_error * std::abs(q[query(e)]) * scale + 1e-12;
            bound.dv[key(j, e)] +=
                (error + 2.02 * rounding + sum) * row[j] * std::abs(dout[query(e)]);
          }
        }
      }
  return bound;
}

AttentionShape shape_of(std::int64_t batch, std::int64_t queries, std::int64_t kv_heads,
                        std::int64_t head_dim, std::int64_t first = 0, std::int64_t heads = 4) {
  return {.batch = batch,
          .queries = queries,
          .keys = first + queries,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .first_position = first};
}

// The same bits come of caches, whatever stands in them beyond the keys.
void check_cached(Backend& be, AttentionShape s, ConstTensorView q, const Tensor& k,
                  const Tensor& v, const Tensor& out, const Tensor& logsumexp) {
  s.capacity = (s.keys / kCacheTile + 2) * kCacheTile;
  const Shape cache_shape{s.capacity, s.kv_heads, s.head_dim};
  const std::vector<double> large(static_cast<std::size_t>(cache_shape.elements()), 1e6);
  Tensor keys = to_device(be, cache_shape, large), values = to_device(be, cache_shape, large);
  // cos 1, sin 0: nothing is rotated.
  std::vector<double> angles(static_cast<std::size_t>(s.keys * s.head_dim));
  for (std::size_t i = 0; i < angles.size(); ++i) {
    const auto within = static_cast<std::int64_t>(i) % s.head_dim;
    angles[i] = within < s.head_dim / 2 ? 1.0 : 0.0;
  }
  const Tensor table = to_device(be, {s.keys, s.head_dim}, angles);
  Tensor unused = be.make_tensor(DType::f32, {1, s.keys, s.heads, s.head_dim}),
         k_rows = be.make_tensor(DType::f32, k.shape());
  be.copy(k, k_rows);
  be.rope_append(unused, k_rows, v, table, 0, keys, values);
  Tensor cached = be.make_tensor(DType::f32, out.shape()),
         sums = be.make_tensor(DType::f32, logsumexp.shape());
  be.attention(s, q, cached_tokens(s, keys), cached_tokens(s, values), cached, sums);
  CHECK(floats_of(be, cached) == floats_of(be, out));
  CHECK(floats_of(be, sums) == floats_of(be, logsumexp));
}

}  // namespace

TEST_CASE("attention and its gradients are within rounding of the reference on every backend",
          "[reference]") {
  for (const TestBackend& b : test_backends()) {
    for (
        const AttentionShape& s :
        {shape_of(2, 5, 4, 16), shape_of(2, 33, 2, 32), shape_of(1, 70, 1, 64),
         shape_of(1, 1, 2, 48), shape_of(1, 1, 2, 64, 40), shape_of(1, 7, 4, 32, 66),
         shape_of(1, 20, 2, 32, 66), shape_of(1, 70, 2, 80, 0, 2), shape_of(1, 40, 2, 128, 0, 2),
         shape_of(1, 33, 1, 256, 0, 2), shape_of(1, 1, 2, 128, 70), shape_of(1, 2, 1, 256, 5),
         // 20 query heads of a key/value head: two calls a token on the CPU (cached); backward by heads and
         // together.
         shape_of(1, 1, 2, 32, 70, 40), shape_of(1, 35, 2, 16, 0, 40),
         shape_of(8, 9, 2, 16, 0, 40)}) {
      INFO(b.name << " queries " << s.queries << " first " << s.first_position << " heads "
                  << s.heads << " kv heads " << s.kv_heads << " head_dim " << s.head_dim);
      const auto backend = b.make();
      Backend& be = *backend;
      const Shape q_shape{s.batch, s.queries, s.heads, s.head_dim},
          kv_shape{s.batch, s.keys, s.kv_heads, s.head_dim};
      const auto q = random_numbers(1, q_shape.elements(), 1.5),
                 k = random_numbers(2, kv_shape.elements(), 1.5);
      const auto v = random_numbers(3, kv_shape.elements()),
                 dout = random_numbers(4, q_shape.elements());
      const auto bound = attention_bounds(b, s, q, k, v, dout);
      const Tensor tq = to_device(be, q_shape, q), tk = to_device(be, kv_shape, k),
                   tv = to_device(be, kv_shape, v);
      Tensor out = be.make_tensor(DType::f32, q_shape),
             without = be.make_tensor(DType::f32, q_shape);
      Tensor logsumexp = be.make_tensor(DType::f32, {s.batch, s.heads, s.queries});
      be.attention(s, tq, tk, tv, out, logsumexp);
      CHECK(worst_ratio(floats_of(be, out), reference::attention(s, q, k, v), bound.out) <= 1);
      be.attention(s, tq, tk, tv, without, {});
      CHECK(floats_of(be, without) == floats_of(be, out));
      if (s.batch == 1) check_cached(be, s, tq, tk, tv, out, logsumexp);
      if (s.first_position > 0) continue;

      Tensor dq = be.make_tensor(DType::f32, q_shape), dk = be.make_tensor(DType::f32, kv_shape),
             dv = be.make_tensor(DType::f32, kv_shape);
      const Tensor tdout = to_device(be, q_shape, dout);
      const auto gradients = [&] {
        be.attention_backward(s, tq, tk, tv, out, logsumexp, tdout, dq, dk, dv);
        return std::vector{floats_of(be, dq), floats_of(be, dk), floats_of(be, dv)};
      };
      const auto actual = gradients();
      const auto exact = reference::attention_backward(s, q, k, v, dout);
      CHECK(worst_ratio(actual[0], exact.dq, bound.dq) <= 1);
      CHECK(worst_ratio(actual[1], exact.dk, bound.dk) <= 1);
      CHECK(worst_ratio(actual[2], exact.dv, bound.dv) <= 1);
      CHECK((gradients() == actual));  // overwritten
    }
  }
}

TEST_CASE("attention of no queries does nothing", "[reference]") {
  const auto backend = default_backend().make();
  Backend& be = *backend;
  for (const std::int64_t keys : {0, 5}) {
    AttentionShape s = shape_of(1, 0, 2, 16, keys);
    s.keys = keys;
    const Tensor q = be.make_tensor(DType::f32, {1, 0, 4, 16}),
                 k = be.make_tensor(DType::f32, {1, keys, 2, 16});
    Tensor out = be.make_tensor(DType::f32, {1, 0, 4, 16}),
           logsumexp = be.make_tensor(DType::f32, {1, 4, 0});
    CHECK_NOTHROW(be.attention(s, q, k, k, out, logsumexp));
    if (keys > 0) continue;
    Tensor dq = be.make_tensor(DType::f32, {1, 0, 4, 16}),
           dk = be.make_tensor(DType::f32, {1, 0, 2, 16}),
           dv = be.make_tensor(DType::f32, {1, 0, 2, 16});
    CHECK_NOTHROW(be.attention_backward(s, q, k, k, out, logsumexp, q, dq, dk, dv));
  }
}

TEST_CASE("attention gives a query the same bits whatever stands beside it", "[reference]") {
  const TestBackend b = generated_backend();
  const auto backend = b.make();
  Backend& be = *backend;
  constexpr std::int64_t kTokens = 53;
  const AttentionShape whole = shape_of(2, kTokens, 2, 32);
  const Shape q_shape{2, kTokens, 4, 32}, kv_shape{2, kTokens, 2, 32};
  const Tensor q = to_device(be, q_shape, random_numbers(1, q_shape.elements()));
  const Tensor k = to_device(be, kv_shape, random_numbers(2, kv_shape.elements()));
  const Tensor v = to_device(be, kv_shape, random_numbers(3, kv_shape.elements()));
  Tensor out = be.make_tensor(DType::f32, q_shape);
  be.attention(whole, q, k, v, out, {});
  const auto everything = floats_of(be, out);
  const auto width = std::ptrdiff_t(4 * 32);
  // Queries [first, first + count) of a sequence, given alone.
  const auto alone = [&](std::int64_t sequence, std::int64_t first, std::int64_t count) {
    const AttentionShape s = shape_of(1, count, 2, 32, first);
    const auto tokens = [&](const Tensor& x, std::int64_t heads, std::int64_t from,
                            std::int64_t number) {
      return x.view()
          .rows(sequence, 1)
          .reshaped({kTokens, heads, 32})
          .rows(from, number)
          .reshaped({1, number, heads, 32});
    };
    Tensor y = be.make_tensor(DType::f32, {1, count, 4, 32});
    be.attention(s, tokens(q, 4, first, count), tokens(k, 2, 0, first + count),
                 tokens(v, 2, 0, first + count), y, {});
    return floats_of(be, y);
  };
  const std::int64_t few = b.few_queries, many = few + 1;
  for (std::int64_t sequence = 0; sequence < 2; ++sequence) {
    for (std::int64_t t = 0; t + many <= kTokens; t += few == 0 ? 1 : 18) {
      const auto first = everything.begin() + (sequence * kTokens + t) * width;
      CHECK((alone(sequence, t, many) == std::vector<float>(first, first + many * width)));
    }
    for (std::int64_t t = 0; t < few; t += 5) {
      const auto together = alone(sequence, 30, few);
      const auto first = together.begin() + t * width;
      CHECK((alone(sequence, 30 + t, 1) == std::vector<float>(first, first + width)));
    }
  }
}

TEST_CASE("attention over fp16 keys and values is that over their widened copies, bit for bit",
          "[reference]") {
  const auto backend = generated_backend().make();
  Backend& be = *backend;
  for (const AttentionShape& s : {shape_of(2, 75, 2, 32), shape_of(2, 1, 1, 64, 90)}) {
    const Shape q_shape{s.batch, s.queries, s.heads, s.head_dim},
        kv_shape{s.batch, s.keys, s.kv_heads, s.head_dim};
    const Tensor q = to_device(be, q_shape, random_numbers(1, q_shape.elements()));
    Tensor k = to_device(be, kv_shape, random_numbers(2, kv_shape.elements()));
    Tensor v = to_device(be, kv_shape, random_numbers(3, kv_shape.elements()));
    Tensor half_k = be.make_tensor(DType::f16, kv_shape),
           half_v = be.make_tensor(DType::f16, kv_shape);
    Tensor from_halves = be.make_tensor(DType::f32, q_shape),
           from_floats = be.make_tensor(DType::f32, q_shape);
    be.convert(k, half_k);
    be.convert(v, half_v);
    be.attention(s, q, half_k, half_v, from_halves, {});
    be.convert(half_k, k);
    be.convert(half_v, v);
    be.attention(s, q, k, v, from_floats, {});
    CHECK(floats_of(be, from_halves) == floats_of(be, from_floats));
    CHECK_THROWS_AS(be.attention(s, q, half_k, v, from_floats, {}), ContractError);
  }
}

TEST_CASE(
    "a key/value head's gradients are within rounding whether its queries share a task or not",
    "[reference]") {
  // 4 query heads of one key/value head: on the CPU each is a task at batch 1, and they share one at
  // batch 16. The two orders of summing dk and dv differ by at most the rounding of a chain of heads
  // * queries.
  const TestBackend b = default_backend();
  const auto backend = b.make();
  Backend& be = *backend;
  const std::int64_t queries = 70, batch = 16;
  const AttentionShape one = shape_of(1, queries, 1, 16), many = shape_of(batch, queries, 1, 16);
  const Shape q_shape{1, queries, 4, 16}, kv_shape{1, queries, 1, 16};
  const auto q = random_numbers(1, q_shape.elements()), k = random_numbers(2, kv_shape.elements()),
             v = random_numbers(3, kv_shape.elements()),
             dout = random_numbers(4, q_shape.elements());
  const auto gradients = [&](const AttentionShape& s) {
    const auto repeated = [&](const Doubles& x) {
      Doubles y;
      for (std::int64_t i = 0; i < s.batch; ++i) y.insert(y.end(), x.begin(), x.end());
      return y;
    };
    const Shape qs{s.batch, queries, 4, 16}, ks{s.batch, queries, 1, 16};
    const Tensor tq = to_device(be, qs, repeated(q)), tk = to_device(be, ks, repeated(k)),
                 tv = to_device(be, ks, repeated(v)), td = to_device(be, qs, repeated(dout));
    Tensor out = be.make_tensor(DType::f32, qs), dq = be.make_tensor(DType::f32, qs);
    Tensor logsumexp = be.make_tensor(DType::f32, {s.batch, 4, queries});
    Tensor dk = be.make_tensor(DType::f32, ks), dv = be.make_tensor(DType::f32, ks);
    be.attention(s, tq, tk, tv, out, logsumexp);
    be.attention_backward(s, tq, tk, tv, out, logsumexp, td, dq, dk, dv);
    std::vector<std::vector<float>> all;
    for (const Tensor* t : {&dq, &dk, &dv}) {
      auto values = floats_of(be, *t);
      values.resize(values.size() / std::size_t(s.batch));
      all.push_back(values);
    }
    return all;
  };
  const auto split = gradients(one), shared = gradients(many);
  CHECK(split[0] == shared[0]);  // dq has one order
  const auto bound = attention_bounds(b, one, q, k, v, dout);
  const auto exact = reference::attention_backward(one, q, k, v, dout);
  for (const auto& result : {split, shared}) {
    CHECK(worst_ratio(result[1], exact.dk, bound.dk) <= 1);
    CHECK(worst_ratio(result[2], exact.dv, bound.dv) <= 1);
  }
}
