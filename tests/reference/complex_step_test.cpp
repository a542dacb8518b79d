// SPDX-License-Identifier: MIT
// The hand-written gradients of the reference against the complex step of its forward functions, in
// double.
#include "tests/reference/complex_step.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

using namespace bitnet;
using namespace bitnet::reference;
using test::random_numbers;

namespace {

// Both sides are double with a few hundred operations each.
constexpr double kTolerance = 1e-10;

using ComplexVector = std::vector<Complex>;

ComplexVector lift(const Doubles& x) { return {x.begin(), x.end()}; }

// The scalar that is differentiated: sum of weights · y.
Complex weighted_sum(const Doubles& weights, const ComplexVector& y) {
  Complex sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += weights[i] * y[i];
  return sum;
}

}  // namespace

TEST_CASE("reference norm gradients equal the complex step", "[reference]") {
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const bool with_gain = GENERATE(true, false);
  const std::int64_t rows = 3, width = 16;
  const auto x = random_numbers(1, rows * width, 1, 0.5), dy = random_numbers(2, rows * width);
  const auto gain = with_gain ? random_numbers(3, width, 0.3, 1) : Doubles{};
  const auto gradients = norm_backward(kind, x, gain, 1e-5, dy, rows, width);
  const auto by_x = [&](const ComplexVector& z) {
    return weighted_sum(dy, norm(kind, z, lift(gain), 1e-5, rows, width));
  };
  CHECK(relative_distance(gradients.dx, complex_step_gradient(by_x, x)) <= kTolerance);
  if (!with_gain) return;
  const auto by_gain = [&](const ComplexVector& z) {
    return weighted_sum(dy, norm(kind, lift(x), z, 1e-5, rows, width));
  };
  CHECK(relative_distance(gradients.dgain, complex_step_gradient(by_gain, gain)) <= kTolerance);
}

TEST_CASE("reference linear gradients equal the complex step", "[reference]") {
  const std::int64_t rows = 4, outputs = 5, inputs = 7;
  const auto x = random_numbers(1, rows * inputs), w = random_numbers(2, outputs * inputs);
  const auto dy = random_numbers(3, rows * outputs);
  const auto gradients = linear_backward(x, w, dy, rows, outputs, inputs);
  const auto by_x = [&](const ComplexVector& z) {
    return weighted_sum(dy, linear(z, lift(w), rows, outputs, inputs));
  };
  const auto by_w = [&](const ComplexVector& z) {
    return weighted_sum(dy, linear(lift(x), z, rows, outputs, inputs));
  };
  CHECK(relative_distance(gradients.dx, complex_step_gradient(by_x, x)) <= kTolerance);
  CHECK(relative_distance(gradients.dw, complex_step_gradient(by_w, w)) <= kTolerance);
}

TEST_CASE("reference RoPE is turned back by its backward, the complex step's gradient",
          "[reference]") {
  const std::int64_t batch = 2, tokens = 3, heads = 2, head_dim = 16,
                     count = batch * tokens * heads * head_dim;
  const auto x = random_numbers(1, count), dy = random_numbers(2, count);
  const auto by_x = [&](const ComplexVector& z) {
    return weighted_sum(dy,
                        rope(z, batch, tokens, heads, head_dim, 1e4, 5, RopeDirection::forward));
  };
  const auto dx = rope(dy, batch, tokens, heads, head_dim, 1e4, 5, RopeDirection::backward);
  CHECK(relative_distance(dx, complex_step_gradient(by_x, x)) <= kTolerance);
}

TEST_CASE("reference attention gradients equal the complex step", "[reference]") {
  const auto kv_heads = GENERATE(4, 2, 1);
  const AttentionShape s{
      .batch = 2, .queries = 4, .keys = 4, .heads = 4, .kv_heads = kv_heads, .head_dim = 3};
  const std::int64_t q_count = 2 * 4 * 4 * 3, kv_count = 2 * 4 * kv_heads * 3;
  const auto q = random_numbers(1, q_count, 2), k = random_numbers(2, kv_count, 2);
  const auto v = random_numbers(3, kv_count), dout = random_numbers(4, q_count);
  const auto gradients = attention_backward(s, q, k, v, dout);
  const auto by_q = [&](const ComplexVector& z) {
    return weighted_sum(dout, attention(s, z, lift(k), lift(v)));
  };
  const auto by_k = [&](const ComplexVector& z) {
    return weighted_sum(dout, attention(s, lift(q), z, lift(v)));
  };
  const auto by_v = [&](const ComplexVector& z) {
    return weighted_sum(dout, attention(s, lift(q), lift(k), z));
  };
  CHECK(relative_distance(gradients.dq, complex_step_gradient(by_q, q)) <= kTolerance);
  CHECK(relative_distance(gradients.dk, complex_step_gradient(by_k, k)) <= kTolerance);
  CHECK(relative_distance(gradients.dv, complex_step_gradient(by_v, v)) <= kTolerance);
}

TEST_CASE("reference activation gradients equal the complex step", "[reference]") {
  const auto activation = GENERATE(Activation::silu, Activation::relu2, Activation::gelu);
  const bool gated = GENERATE(true, false);
  const auto gate = random_numbers(1, 64, 2), dy = random_numbers(3, 64);
  const auto up = gated ? random_numbers(2, 64) : Doubles{};
  const auto gradients = gated_activation_backward(activation, gate, up, dy);
  const auto by_gate = [&](const ComplexVector& z) {
    return weighted_sum(dy, gated_activation(activation, z, lift(up)));
  };
  CHECK(relative_distance(gradients.dgate, complex_step_gradient(by_gate, gate)) <= kTolerance);
  if (!gated) return;
  const auto by_up = [&](const ComplexVector& z) {
    return weighted_sum(dy, gated_activation(activation, lift(gate), z));
  };
  CHECK(relative_distance(gradients.dup, complex_step_gradient(by_up, up)) <= kTolerance);
}

TEST_CASE("reference cross-entropy gradients equal the complex step", "[reference]") {
  const std::int64_t vocabulary = 11;
  const std::vector<std::int32_t> targets{3, 0, -1, 10};
  const auto logits = random_numbers(1, 4 * vocabulary, 4);
  const auto by_logits = [&](const ComplexVector& z) {
    Complex sum = 0;
    for (const Complex& row : cross_entropy(z, targets, vocabulary)) sum += row;
    return sum;
  };
  CHECK(relative_distance(cross_entropy_backward(logits, targets, vocabulary),
                          complex_step_gradient(by_logits, logits)) <= kTolerance);
}
