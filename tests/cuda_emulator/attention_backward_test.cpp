// SPDX-License-Identifier: MIT
// Gradients of attention on tensor cores against a double reference at the operands as they were
// rounded: what is left are fp32 sums and the rounding of the weights to bf16.
#include "cuda/attention_backward.h"

#include <cuda_bf16.h>

#include "cuda/attention_operands.h"
#include "tests/cuda_emulator/attention_cases.h"
#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using Floats = std::vector<float>;

Floats random_bf16(std::size_t count, unsigned seed, float deviation = 1.0f) {
  return test::rounded_to_bf16(random_floats(count, seed, deviation));
}

// Operands that bf16 holds; q as the kernel takes it. What the forward left behind is exact.
struct Problem {
  AttentionCase c;
  Floats q, k, v, dout, out, logsumexp;
  ExactAttention exact;
  explicit Problem(const AttentionCase& shape)
      : c(shape),
        q(random_bf16(c.query_size(), 1, 0.4f)),
        k(random_bf16(c.key_size(), 2)),
        v(random_bf16(c.key_size(), 3)),
        dout(random_bf16(c.query_size(), 4)),
        exact(exact_attention(c, q, k, v)) {
    out.assign(exact.out.begin(), exact.out.end());
    logsumexp.assign(exact.logsumexp.begin(), exact.logsumexp.end());
  }
  float score_scale() const { return 1.0f / std::sqrt(static_cast<float>(c.head_dim)); }
};

struct Gradients {
  Floats dq, dk, dv;
  bool operator==(const Gradients&) const = default;
};

// With activations and gradients of type T, which are widened.
template <typename T = float>
Gradients run(const Problem& x) {
  const AttentionCase& c = x.c;
  const test::Stream stream;
  const std::size_t width = static_cast<std::size_t>(attention_operand_width(c.head_dim));
  const int room = attention_row_room(c.queries);
  DeviceArray<T> q(narrowed<T>(x.q)), k(narrowed<T>(x.k)), v(narrowed<T>(x.v));
  DeviceArray<T> out(narrowed<T>(x.out)), dout(narrowed<T>(x.dout));
  DeviceArray<float> logsumexp(x.logsumexp);
  DeviceArray<T> dq(x.q.size()), dk(x.k.size()), dv(x.v.size());
  DeviceArray<__nv_bfloat16> operand_q(c.row_count() * width), operand_dout(operand_q.size());
  const std::size_t kv_size = static_cast<std::size_t>(c.batch * c.kv_heads * c.queries) * width;
  DeviceArray<__nv_bfloat16> operand_k(kv_size), operand_v(kv_size);
  DeviceArray<float2> rows(static_cast<std::size_t>(c.batch * c.heads * room));
  const auto convert = [&](DeviceArray<T>& from, DeviceArray<__nv_bfloat16>& to) {
    REQUIRE(cuda_error(query_operand(
                {from.data(), 1.0f, to.data(), c.batch, c.queries, c.heads, c.head_dim}, stream)) ==
            "");
  };
  convert(q, operand_q);
  convert(dout, operand_dout);
  REQUIRE(cuda_error(key_value_operands<T>({k.data(),
                                            v.data(),
                                            operand_k.data(),
                                            operand_v.data(),
                                            {},
                                            c.queries,
                                            c.batch,
                                            c.queries,
                                            c.queries,
                                            c.kv_heads,
                                            c.head_dim},
                                           stream)) == "");
  REQUIRE(cuda_error(attention_rows({out.data(), dout.data(), logsumexp.data(), rows.data(),
                                     c.batch, c.queries, room, c.heads, c.head_dim},
                                    stream)) == "");
  REQUIRE(cuda_error(attention_backward(
              {operand_q.data(), operand_dout.data(), operand_k.data(), operand_v.data(),
               rows.data(), dq.data(), dk.data(), dv.data(), x.score_scale(), c.batch, c.queries,
               room, c.heads, c.kv_heads, c.head_dim},
              stream)) == "");
  return {widened(dq.to_host()), widened(dk.to_host()), widened(dv.to_host())};
}

struct Expected {
  std::vector<double> value, bound;
  explicit Expected(std::size_t size) : value(size), bound(size) {}
  void add(std::size_t i, double x, double error) { value[i] += x, bound[i] += error; }
  void check(const Floats& actual) const {
    for (std::size_t i = 0; i < actual.size(); ++i) {
      CHECK(std::abs(actual[i] - value[i]) <= bound[i]);
    }
  }
};

const std::vector<AttentionCase> kCases = {
    // batch, queries, heads, kv_heads, head_dim
    {1, 1, 1, 1, 16},   {2, 17, 2, 1, 16},  {1, 32, 1, 1, 32},  {1, 65, 3, 1, 32},
    {1, 64, 2, 2, 48},  {1, 34, 1, 1, 64},  {1, 100, 2, 1, 64}, {2, 33, 1, 1, 80},
    {1, 66, 1, 1, 128}, {1, 35, 2, 1, 144}, {1, 33, 1, 1, 256},
};

TEST_CASE(
    "The attention's gradients are within the rounding of the weights to bf16 of exact ones") {
  Problem x(GENERATE(from_range(kCases)));
  const AttentionCase& c = x.c;
  CAPTURE(c.queries, c.heads, c.head_dim);
  const int dim = c.head_dim;
  Expected dq(x.q.size()), dk(x.k.size()), dv(x.v.size());
  const double scale = x.score_scale(), ln2 = std::log(2.0);
  const double adds = (c.queries * c.heads / c.kv_heads + 16) * 0x1p-23;
  for_each_row(c, [&](int b, int t, int h) {
    exact_row(c, x.q, x.k, b, t, h, x.exact);
    const std::size_t row = c.row(b, t, h), query = c.query(b, t, h);
    // Relative error of p: of its score, of the logsumexp as given and scaled, of 2^x.
    const double p_error = (dim + 4) * 0x1p-23 * x.exact.score_magnitude[row] +
                           3 * 0x1p-24 * std::abs(x.exact.logsumexp[row]) + 0x1p-21;
    double delta = 0, delta_error = 0;
    for (int e = 0; e < dim; ++e) {
      const double product = x.dout[query + e] * x.exact.out[query + e];
      delta += product;
      delta_error += (dim + 2) * 0x1p-24 * std::abs(product);
    }
    for (int j = 0; j <= t; ++j) {
      const std::size_t key = c.key(b, j, h);
      const double p = x.exact.p[static_cast<std::size_t>(j)];
      double dp = 0, dp_error = delta_error;
      for (int e = 0; e < dim; ++e) {
        const double product = double(x.dout[query + e]) * double(x.v[key + e]);
        dp += product;
        dp_error += (dim + 2) * 0x1p-23 * std::abs(product);
      }
      const double ds = p * (dp - delta);
      const double ds_error = std::abs(ds) * (p_error + 0x1p-8 + adds) + p * dp_error;
      for (int e = 0; e < dim; ++e) {
        const double to_dq = x.k[key + e] * scale, to_dk = x.q[query + e] * ln2;
        const double to_dv = x.dout[query + e];
        dq.add(query + e, ds * to_dq, ds_error * std::abs(to_dq) + 0x1p-40);
        dk.add(key + e, ds * to_dk, ds_error * std::abs(to_dk) + 0x1p-40);
        dv.add(key + e, p * to_dv, p * (p_error + 0x1p-8 + adds) * std::abs(to_dv));
      }
    }
  });
  const Gradients first = run(x);
  dq.check(first.dq);
  dk.check(first.dk);
  dv.check(first.dv);
}

TEST_CASE("The attention's gradients are the same bits in every execution") {
  // Two tiles of keys and of queries, the last ones ragged; several heads and sequences.
  const Problem x(GENERATE(AttentionCase{1, 70, 1, 1, 16}, AttentionCase{2, 33, 2, 1, 32}));
  const Gradients first = run(x);
  test::in_each_execution([&] { CHECK(run(x) == first); });
}

TEST_CASE("The attention's bf16 gradients are those of widened tensors, rounded once") {
  Problem x(GENERATE(from_range(kCases)));
  CAPTURE(x.c.queries, x.c.heads, x.c.head_dim);
  x.out = test::rounded_to_bf16(x.out);
  const Gradients wide = run(x);
  const Gradients expected = {test::rounded_to_bf16(wide.dq), test::rounded_to_bf16(wide.dk),
                              test::rounded_to_bf16(wide.dv)};
  CHECK(run<__nv_bfloat16>(x) == expected);
}

TEST_CASE("The attention's backward refuses shapes that it has no kernel for") {
  AttentionBackward op{};
  op.batch = op.tokens = op.heads = op.kv_heads = 1;
  op.room = attention_row_room(1);
  for (const int head_dim : {0, 24, 272}) {
    op.head_dim = head_dim;
    CHECK(attention_backward(op, nullptr) == cudaErrorInvalidValue);
  }
  op.head_dim = 32;
  op.room = 1;
  CHECK(attention_backward(op, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
