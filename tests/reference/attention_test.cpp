// SPDX-License-Identifier: MIT
// Attention of every instruction set, online softmax and all, against the reference's explicit
// matrix in double.
#include "core/cpu/cpu_backend.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

using namespace bitnet;
using namespace bitnet::test;
using reference::Doubles;

namespace {

// Bounds by the sizes of what is summed. A probability is off, relatively, by the error of its
// score (a product of E terms, rounded again by the subtraction of the maximum) twice (itself and
// the sum), and by up to 8 roundings a key (exp, rescaling and adding of the online softmax).
struct Bounds {
  Doubles out, dq, dk, dv;
};

Bounds attention_bounds(const AttentionShape& s, const Doubles& q, const Doubles& k,
                        const Doubles& v, const Doubles& dout) {
  Bounds bound{Doubles(q.size()), Doubles(q.size()), Doubles(k.size()), Doubles(v.size())};
  const auto p = reference::attention_probabilities(s, q, k);
  const double scale = 1 / std::sqrt(double(s.head_dim));
  const std::int64_t e_count = s.head_dim, group = s.heads / s.kv_heads;
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
        double score = 0, mean_dp = 0;
        Doubles dp(static_cast<std::size_t>(seen));
        for (std::int64_t j = 0; j < seen; ++j) {
          double dot = 0;
          for (std::int64_t e = 0; e < e_count; ++e) {
            dot += std::abs(q[query(e)] * k[key(j, e)]) * scale;
            dp[std::size_t(j)] += std::abs(dout[query(e)] * v[key(j, e)]);
          }
          score = std::max(score, dot);
          mean_dp += row[j] * dp[std::size_t(j)];
        }
        const double error = (2 * double(e_count + 6) * score + 8 * double(seen) + 16) * kRounding;
        const double ds_error = 2 * error + double(2 * e_count + 2 * seen + 16) * kRounding;
        const double add = double(s.keys * group + 2) * kRounding;
        for (std::int64_t j = 0; j < seen; ++j)
          for (std::int64_t e = 0; e < e_count; ++e) {
            const double ds = row[j] * (dp[std::size_t(j)] + mean_dp);
            bound.out[query(e)] += (error + add) * row[j] * std::abs(v[key(j, e)]);
            bound.dv[key(j, e)] += (error + add) * row[j] * std::abs(dout[query(e)]);
            bound.dq[query(e)] += (ds_error + add) * ds * std::abs(k[key(j, e)]) * scale;
            bound.dk[key(j, e)] += (ds_error + add) * ds * std::abs(q[query(e)]) * scale;
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

}  // namespace

TEST_CASE("attention and its gradients are within fp32 rounding of the reference on every ISA",
          "[reference][cpu]") {
  for (const std::string& isa : available_cpu_isas()) {
    for (const AttentionShape& s :
         {shape_of(2, 5, 4, 16), shape_of(2, 33, 2, 32), shape_of(1, 70, 1, 64),
          shape_of(1, 1, 2, 48), shape_of(1, 1, 2, 64, 40), shape_of(1, 7, 4, 32, 66),
          shape_of(1, 70, 2, 80), shape_of(1, 40, 2, 128), shape_of(1, 33, 2, 256),
          shape_of(1, 1, 2, 128, 70), shape_of(1, 2, 1, 256, 5),
          // 20 query heads of a key/value head: two calls a token; backward by heads and together.
          shape_of(1, 1, 2, 32, 70, 40), shape_of(1, 35, 2, 16, 0, 40),
          shape_of(8, 9, 2, 16, 0, 40)}) {
      INFO(isa << " queries " << s.queries << " first " << s.first_position << " heads " << s.heads
               << " kv heads " << s.kv_heads << " head_dim " << s.head_dim);
      const auto backend = make_cpu_backend(1, isa);
      Backend& be = *backend;
      const Shape q_shape{s.batch, s.queries, s.heads, s.head_dim},
          kv_shape{s.batch, s.keys, s.kv_heads, s.head_dim};
      const auto q = random_numbers(1, q_shape.elements(), 1.5),
                 k = random_numbers(2, kv_shape.elements(), 1.5);
      const auto v = random_numbers(3, kv_shape.elements()),
                 dout = random_numbers(4, q_shape.elements());
      const auto bound = attention_bounds(s, q, k, v, dout);
      const Tensor tq = to_device(be, q_shape, q), tk = to_device(be, kv_shape, k),
                   tv = to_device(be, kv_shape, v);
      Tensor out = be.make_tensor(DType::f32, q_shape);
      Tensor logsumexp = be.make_tensor(DType::f32, {s.batch, s.heads, s.queries});
      be.attention(s, tq, tk, tv, out, logsumexp);
      CHECK(worst_ratio(floats_of(be, out), reference::attention(s, q, k, v), bound.out) <= 1);
      if (s.first_position > 0) continue;

      Tensor dq = be.make_tensor(DType::f32, q_shape), dk = be.make_tensor(DType::f32, kv_shape),
             dv = be.make_tensor(DType::f32, kv_shape);
      be.attention_backward(s, tq, tk, tv, out, logsumexp, to_device(be, q_shape, dout), dq, dk,
                            dv);
      const auto exact = reference::attention_backward(s, q, k, v, dout);
      CHECK(worst_ratio(floats_of(be, dq), exact.dq, bound.dq) <= 1);
      CHECK(worst_ratio(floats_of(be, dk), exact.dk, bound.dk) <= 1);
      CHECK(worst_ratio(floats_of(be, dv), exact.dv, bound.dv) <= 1);
    }
  }
}

TEST_CASE("attention of no queries does nothing", "[reference][cpu]") {
  const auto backend = make_cpu_backend(2);
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

TEST_CASE("attention gives a query the same bits whatever stands beside it", "[reference][cpu]") {
  const AttentionShape whole = shape_of(2, 37, 2, 32);
  const auto isa = GENERATE(from_range(available_cpu_isas()));
  const auto backend = make_cpu_backend(2, isa);
  Backend& be = *backend;
  const Shape q_shape{2, 37, 4, 32}, kv_shape{2, 37, 2, 32};
  const Tensor q = to_device(be, q_shape, random_numbers(1, q_shape.elements()));
  const Tensor k = to_device(be, kv_shape, random_numbers(2, kv_shape.elements()));
  const Tensor v = to_device(be, kv_shape, random_numbers(3, kv_shape.elements()));
  Tensor out = be.make_tensor(DType::f32, q_shape);
  be.attention(whole, q, k, v, out, {});
  const auto expected = floats_of(be, out);
  for (std::int64_t b = 0; b < 2; ++b)
    for (std::int64_t t = 0; t < 37; ++t) {
      AttentionShape one = shape_of(1, 1, 2, 32, t);
      Tensor y = be.make_tensor(DType::f32, {1, 1, 4, 32});
      be.attention(
          one, q.view().rows(b, 1).reshaped({37, 1, 4, 32}).rows(t, 1),
          k.view().rows(b, 1).reshaped({37, 1, 2, 32}).rows(0, t + 1).reshaped({1, t + 1, 2, 32}),
          v.view().rows(b, 1).reshaped({37, 1, 2, 32}).rows(0, t + 1).reshaped({1, t + 1, 2, 32}),
          y, {});
      const auto first = expected.begin() + (b * 37 + t) * 128;
      CHECK(floats_of(be, y) == std::vector<float>(first, first + 128));
    }
}

TEST_CASE("attention over fp16 keys and values is that over their widened copies, bit for bit",
          "[reference][cpu]") {
  const auto backend = make_cpu_backend(2, GENERATE(from_range(available_cpu_isas())));
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
    "[reference][cpu]") {
  // 4 query heads of one key/value head: at batch 1 each is a task, at batch 16 they share one. The
  // two orders of summing dk and dv differ by at most the rounding of a chain of heads * queries.
  const auto backend = make_cpu_backend(2);
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
      for (std::int64_t b = 0; b < s.batch; ++b) y.insert(y.end(), x.begin(), x.end());
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
  const auto bound = attention_bounds(one, q, k, v, dout);
  const auto exact = reference::attention_backward(one, q, k, v, dout);
  for (const auto& result : {split, shared}) {
    CHECK(worst_ratio(result[1], exact.dk, bound.dk) <= 1);
    CHECK(worst_ratio(result[2], exact.dv, bound.dv) <= 1);
  }
}
