// SPDX-License-Identifier: MIT
// Every table of fp32 kernels against the scalar table, bit for bit, and exp against double.
// Depends on bitnet_kernels alone.
#include "core/cpu/float_kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/cpu/lanes_constants.h"
#include "tests/cpu/available_isas.h"
#include "tests/support/catch.h"

namespace bitnet::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

using Floats = std::vector<float>;

const FloatKernels& generated_kernels() {
  const Isa isa = GENERATE(from_range(test::available_isas()));
  const FloatKernels* kernels = float_kernels(isa);
  REQUIRE(kernels != nullptr);
  return *kernels;
}

Floats random_floats(std::int64_t count, unsigned seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Floats x(static_cast<std::size_t>(count));
  for (auto& v : x) v = normal(random);
  return x;
}

Floats zeros(std::int64_t count) { return Floats(static_cast<std::size_t>(count)); }

// Comparable with == even where there are signed zeros; all NaNs count as one, because their
// payload is the processor's choice.
std::vector<std::uint32_t> bits_of(const Floats& x) {
  std::vector<std::uint32_t> bits;
  for (const float v : x) bits.push_back(std::bit_cast<std::uint32_t>(std::isnan(v) ? kNaN : v));
  return bits;
}

// Runs body(kernels) with a table and with the scalar one, and compares the floats that it returns.
template <typename Body>
void check_same_bits(const FloatKernels& kernels, const Body& body) {
  CHECK(bits_of(body(kernels)) == bits_of(body(kFloatScalar)));
}

std::int64_t generated_size() { return GENERATE(1, 7, 15, 16, 17, 31, 32, 33, 64, 100, 256); }

TEST_CASE("a float table carries the name of its instruction set") {
  for (const Isa isa : test::available_isas()) {
    REQUIRE(float_kernels(isa) != nullptr);
    CHECK(std::string(float_kernels(isa)->name) == to_string(isa));
  }
}

TEST_CASE("linear has the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t inputs = generated_size();
  const std::int64_t rows = GENERATE(1, 5, 6, 13), outputs = GENERATE(1, 4, 7);
  const Floats x = random_floats(rows * inputs, 1), w = random_floats(outputs * inputs, 2);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats y = zeros(rows * (outputs + 2));
    k.linear(x.data(), w.data(), y.data(), outputs + 2, rows, outputs, inputs);
    return y;
  });
}

TEST_CASE("a dot product is the tree sum of 16 fma lanes") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t inputs = 53;
  const Floats x = random_floats(inputs, 3), w = random_floats(inputs, 4);
  float lane[16] = {};
  for (std::size_t i = 0; i < 53; ++i) lane[i % 16] = std::fma(x[i], w[i], lane[i % 16]);
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  float y = 0;
  kernels.linear(x.data(), w.data(), &y, 1, 1, 1, inputs);
  CHECK(y == lane[0]);
}

TEST_CASE("norms and their gradients have the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = generated_size();
  const bool layer = GENERATE(false, true), with_gain = GENERATE(false, true);
  const std::int64_t rows = 3;
  const Floats x = random_floats(rows * n, 5), gain = random_floats(n, 6),
               dy = random_floats(rows * n, 7);
  const float* gains = with_gain ? gain.data() : nullptr;
  Floats stats = zeros(2 * rows);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats y = zeros(rows * n);
    k.norm(layer, x.data(), gains, 1e-5f, rows, n, y.data(), stats.data());
    y.insert(y.end(), stats.begin(), stats.end());
    return y;
  });
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats dx = zeros(rows * n), dgain = random_floats(n, 8);
    k.norm_backward(layer, x.data(), gains, stats.data(), dy.data(), rows, n, dx.data(),
                    dgain.data());
    dx.insert(dx.end(), dgain.begin(), dgain.end());
    return dx;
  });
}

TEST_CASE("norm_backward may overwrite dy") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = 37, rows = 2;
  const Floats x = random_floats(rows * n, 9), stats = {0.1f, 1.2f, -0.2f, 0.9f};
  Floats dy = random_floats(rows * n, 10), dx = zeros(rows * n);
  kernels.norm_backward(true, x.data(), nullptr, stats.data(), dy.data(), rows, n, dx.data(),
                        nullptr);
  kernels.norm_backward(true, x.data(), nullptr, stats.data(), dy.data(), rows, n, dy.data(),
                        nullptr);
  CHECK(dy == dx);
}

TEST_CASE("rope has the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t head_dim = GENERATE(2, 16, 30, 32, 48, 64, 128);
  const float sign = GENERATE(1.0f, -1.0f);
  const Floats angles = random_floats(head_dim, 11);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats x = random_floats(3 * head_dim, 12);
    k.rope(x.data(), angles.data(), 3, head_dim, sign);
    return x;
  });
}

// Two heads side by side, of which the kernels get the second.
struct AttentionInputs {
  std::int64_t tokens, first_position, head_dim;
  std::int64_t stride() const { return 2 * head_dim; }
  std::int64_t queries() const { return tokens - first_position; }
  Floats q = random_floats(queries() * stride(), 13, 2.0f);
  Floats k = random_floats(tokens * stride(), 14);
  Floats v = random_floats(tokens * stride(), 15);

  // out, then logsumexp.
  Floats forward(const FloatKernels& kernels) const {
    Floats out = zeros(queries() * stride()), logsumexp = zeros(queries());
    for (std::int64_t first = 0; first < queries(); first += kAttentionTile) {
      kernels.attention({.q = q.data() + first * stride() + head_dim,
                         .k = k.data() + head_dim,
                         .v = v.data() + head_dim,
                         .out = out.data() + first * stride() + head_dim,
                         .logsumexp = logsumexp.data() + first,
                         .q_stride = stride(),
                         .kv_stride = stride(),
                         .queries = std::min(kAttentionTile, queries() - first),
                         .first_position = first_position + first,
                         .head_dim = head_dim,
                         .scale = 0.125f});
    }
    out.insert(out.end(), logsumexp.begin(), logsumexp.end());
    return out;
  }
};

TEST_CASE("attention has the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const auto [tokens, first_position] = GENERATE(table<std::int64_t, std::int64_t>(
      {{1, 0}, {17, 0}, {64, 0}, {65, 0}, {131, 0}, {130, 129}, {150, 61}}));
  const std::int64_t head_dim = GENERATE(16, 48, 64);
  const AttentionInputs inputs{tokens, first_position, head_dim};
  check_same_bits(kernels, [&](const FloatKernels& k) { return inputs.forward(k); });
}

TEST_CASE("attention ignores whatever stands in later keys and values, even NaN") {
  const FloatKernels& kernels = generated_kernels();
  AttentionInputs inputs{75, 0, 32};
  const Floats before = inputs.forward(kernels);
  const std::int64_t changed = GENERATE(1, 40, 63, 64, 74);
  const std::int64_t clean = changed * inputs.stride();
  std::fill(inputs.k.begin() + clean, inputs.k.end(), kNaN);
  std::fill(inputs.v.begin() + clean, inputs.v.end(), kInfinity);
  const Floats after = inputs.forward(kernels);
  CHECK(Floats(before.begin(), before.begin() + clean) ==
        Floats(after.begin(), after.begin() + clean));
  CHECK(std::isnan(after[static_cast<std::size_t>(clean + inputs.head_dim)]));
}

TEST_CASE("attention's gradients have the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t tokens = GENERATE(1, 19, 64, 70, 130), head_dim = GENERATE(16, 48, 64);
  const std::int64_t heads = 2, q_stride = heads * head_dim;
  const Floats q = random_floats(tokens * q_stride, 16),
               dout = random_floats(tokens * q_stride, 17);
  const Floats k = random_floats(tokens * head_dim, 18), v = random_floats(tokens * head_dim, 19);
  Floats out = random_floats(tokens * q_stride, 20), logsumexp = random_floats(heads * tokens, 21);
  for (float& value : logsumexp) value += 4.0f;  // any operands will do
  check_same_bits(kernels, [&](const FloatKernels& table) {
    Floats dq = random_floats(tokens * q_stride, 22), dk = zeros(tokens * head_dim), dv = dk;
    table.attention_backward({.q = q.data(),
                              .out = out.data(),
                              .dout = dout.data(),
                              .dq = dq.data(),
                              .k = k.data(),
                              .v = v.data(),
                              .dk = dk.data(),
                              .dv = dv.data(),
                              .logsumexp = logsumexp.data(),
                              .q_stride = q_stride,
                              .kv_stride = head_dim,
                              .tokens = tokens,
                              .heads = heads,
                              .head_dim = head_dim,
                              .scale = 0.125f});
    dq.insert(dq.end(), dk.begin(), dk.end());
    dq.insert(dq.end(), dv.begin(), dv.end());
    return dq;
  });
}

// Random values and every kind of special one.
Floats awkward_floats() {
  Floats x = random_floats(300, 23, 20.0f);
  for (const float magnitude :
       {0.0f, 1e-45f, 1e-38f, 1e-20f, 0.5f, 1.0f, 86.6f, 86.7f, 88.7f, 88.8f, 150.0f, 1e20f,
        std::numeric_limits<float>::max(), kInfinity, kNaN}) {
    x.push_back(magnitude);
    x.push_back(-magnitude);
  }
  return x;
}

TEST_CASE(
    "activations and their gradients have the same bits on every ISA, special values included") {
  const FloatKernels& kernels = generated_kernels();
  const auto member = GENERATE(&FloatKernels::silu, &FloatKernels::relu2, &FloatKernels::gelu);
  const bool gated = GENERATE(false, true);
  const Floats gate = awkward_floats();
  const auto n = static_cast<std::int64_t>(gate.size());
  const Floats up = random_floats(n, 24), dy = random_floats(n, 25);
  const float* ups = gated ? up.data() : nullptr;
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats y = zeros(n), dup = zeros(n), dgate = gate;  // in place
    (k.*member).forward(gate.data(), ups, y.data(), n);
    (k.*member).backward(dgate.data(), ups, dy.data(), dgate.data(), gated ? dup.data() : nullptr,
                         n);
    y.insert(y.end(), dgate.begin(), dgate.end());
    y.insert(y.end(), dup.begin(), dup.end());
    return y;
  });
}

TEST_CASE("exp is within 1 ulp of the true value, 0 below its range and infinite above") {
  const FloatKernels& kernels = generated_kernels();
  Floats x, y;
  for (double v = kExpUnderflow; v <= kExpOverflow; v += 0.00137)
    x.push_back(static_cast<float>(v));
  y = x;
  kernels.exp(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] < kExpUnderflow) continue;
    const double exact = std::exp(static_cast<double>(x[i]));
    int exponent = 0;
    std::frexp(exact, &exponent);  // an ulp is 2^(exponent - 24)
    worst = std::max(worst,
                     std::abs(static_cast<double>(y[i]) - exact) / std::ldexp(1.0, exponent - 24));
  }
  INFO("largest error in ulp: " << worst);
  CHECK(worst <= 1.0);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats values = awkward_floats();
    k.exp(values.data(), values.data(), static_cast<std::int64_t>(values.size()));
    return values;
  });
  const Floats ends = {-kInfinity, -87.0f, 0.0f, 89.0f, kInfinity, kNaN};
  Floats at_ends = ends;
  kernels.exp(ends.data(), at_ends.data(), 6);
  CHECK(bits_of(at_ends) == bits_of({0.0f, 0.0f, 1.0f, kInfinity, kInfinity, kNaN}));
}

TEST_CASE("cross_entropy has the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = generated_size();
  const Floats logits = random_floats(n, 26, 5.0f);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats dlogits = logits;  // in place
    const float loss = k.cross_entropy(dlogits.data(), n, n / 2, 0.25f, dlogits.data());
    dlogits.push_back(loss);
    dlogits.push_back(k.cross_entropy(logits.data(), n, n / 2, 0.25f, nullptr));
    CHECK(dlogits[static_cast<std::size_t>(n)] == dlogits.back());
    return dlogits;
  });
}

TEST_CASE("adamw, add and the sums have the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = generated_size();
  const Floats a = random_floats(n, 27), b = random_floats(n, 28);
  const AdamWFactors factors{0.5f, 0.9999f, 0.1f, 0.95f, 0.05f, 4.0f, 1e-8f, 0.003f};
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats p = b, m = random_floats(n, 29), v = random_floats(n, 30), sum = zeros(n);
    for (float& value : v) value *= value;
    k.adamw(factors, a.data(), p.data(), m.data(), v.data(), n);
    k.add(a.data(), b.data(), sum.data(), n);
    for (const Floats* more : {&m, &v, &sum}) p.insert(p.end(), more->begin(), more->end());
    return p;
  });
  CHECK(kernels.sum(a.data(), n) == kFloatScalar.sum(a.data(), n));
  CHECK(kernels.sum_of_squares(a.data(), n) == kFloatScalar.sum_of_squares(a.data(), n));
}

}  // namespace
}  // namespace bitnet::cpu
