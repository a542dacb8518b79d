// SPDX-License-Identifier: MIT
// Norms, RoPE, activations, the loss and AdamW of every backend against the double
// reference. Bounds count fp32 roundings (u = 2^-24); exp and erf may be off by kFunction u
// relative to their result.
#include "tests/reference/ops_backward.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

using namespace bitnet;
using namespace bitnet::test;
using reference::Doubles;

namespace {

constexpr double kFunction = 8;

struct NormCase {
  NormKind kind;
  bool gain;
  std::int64_t rows, width;
};

std::vector<NormCase> norm_cases() {
  return {{NormKind::rms, true, 5, 64},
          {NormKind::rms, false, 3, 200},
          {NormKind::layer, true, 5, 64},
          {NormKind::layer, false, 3, 192},
          {NormKind::rms, true, 70, 128}};
}

// Error of n = (x - mean) inv_std: the sums of `width` terms put (width + 4) u on mean and on
// inv_std², relative to the size of the terms; the mean of the data is below its deviation, so that
// the variance is well conditioned (factor 2).
Doubles norm_bound(const NormCase& c, const Doubles& x, const Doubles& gain, double eps) {
  Doubles bound(x.size());
  for (std::int64_t r = 0; r < c.rows; ++r) {
    const std::size_t first = std::size_t(r * c.width);
    const auto stats = reference::norm_stats(c.kind, &x[first], c.width, eps);
    double mean_abs = 0;
    if (c.kind == NormKind::layer)
      for (std::size_t i = 0; i < std::size_t(c.width); ++i)
        mean_abs += std::abs(x[first + i]) / double(c.width);
    for (std::size_t i = 0; i < std::size_t(c.width); ++i)
      bound[first + i] = double(2 * c.width + 8) * kRounding * (std::abs(x[first + i]) + mean_abs) *
                         stats.inv_std * (gain.empty() ? 1.0 : std::abs(gain[i]));
  }
  return bound;
}

}  // namespace

TEST_CASE("the output of RMSNorm has root mean square 1", "[reference]") {
  for (const TestBackend& b : test_backends()) {
    const auto be = b.make();
    for (const double deviation : {0.01, 1.0, 300.0}) {
      const Tensor x = to_device(*be, {2, 256}, random_numbers(1, 512, deviation));
      Tensor y = be->make_tensor(DType::f32, {2, 256}), stats = be->make_tensor(DType::f32, {2, 2});
      be->norm(NormKind::rms, x, {}, 1e-12f, y, stats);
      const auto values = doubles_of(*be, y);
      for (std::size_t r = 0; r < 2; ++r) {
        double square = 0;
        for (std::size_t i = 0; i < 256; ++i)
          square += values[r * 256 + i] * values[r * 256 + i] / 256;
        CHECK(std::abs(std::sqrt(square) - 1) <=
              256 * kRounding + 1e-8);  // eps shifts it by 5e-9 at deviation 0.01
      }
    }
  }
}

TEST_CASE("norm and its gradients are within fp32 rounding of the reference on every backend",
          "[reference]") {
  constexpr double kEps = 1e-5f;
  for (const TestBackend& b : test_backends()) {
    for (const NormCase& c : norm_cases()) {
      INFO(b.name << (c.kind == NormKind::rms ? " rms " : " layer ") << c.rows << " x " << c.width);
      const auto backend = b.make();
      Backend& be = *backend;
      const auto x = random_numbers(1, c.rows * c.width, 1.5, 0.5),
                 dy = random_numbers(2, c.rows * c.width);
      const auto gain = c.gain ? random_numbers(3, c.width, 0.3, 1) : Doubles{};
      const Tensor tx = to_device(be, {c.rows, c.width}, x),
                   tdy = to_device(be, {c.rows, c.width}, dy);
      const Tensor tgain = c.gain ? to_device(be, {c.width}, gain) : Tensor();
      Tensor y = be.make_tensor(DType::f32, {c.rows, c.width}),
             dx = be.make_tensor(DType::f32, {c.rows, c.width});
      Tensor stats = be.make_tensor(DType::f32, {c.rows, 2});
      be.norm(c.kind, tx, tgain, float(kEps), y, stats);
      const auto bound = norm_bound(c, x, gain, kEps);
      CHECK(worst_ratio(floats_of(be, y), reference::norm(c.kind, x, gain, kEps, c.rows, c.width),
                        bound) <= 1);

      const auto dgain_before = random_numbers(4, c.width);
      Tensor dgain = c.gain ? to_device(be, {c.width}, dgain_before) : Tensor();
      be.norm_backward(c.kind, tx, tgain, stats, tdy, dx, false, dgain);
      const auto exact = reference::norm_backward(c.kind, x, gain, kEps, dy, c.rows, c.width);
      // dx = inv_std (g - mean g - n mean(g n)), each term with the error of n and that of its own
      // sum.
      Doubles dx_bound(x.size()), dgain_bound(gain.size());
      const auto n = reference::norm(c.kind, x, {}, kEps, c.rows, c.width);
      const auto n_bound = norm_bound(c, x, {}, kEps);
      for (std::int64_t r = 0; r < c.rows; ++r) {
        const double inv_std =
            reference::norm_stats(c.kind, &x[std::size_t(r * c.width)], c.width, kEps).inv_std;
        const auto place = [&](std::int64_t i) { return std::size_t(r * c.width + i); };
        const auto g = [&](std::int64_t i) {
          return std::abs(dy[place(i)] * (c.gain ? gain[std::size_t(i)] : 1.0));
        };
        const double each = double(2 * c.width + 8) * kRounding;
        double mean_g = 0, mean_gn = 0, mean_gn_error = 0;
        for (std::int64_t i = 0; i < c.width; ++i) {
          mean_g += g(i) / double(c.width);
          mean_gn += g(i) * std::abs(n[place(i)]) / double(c.width);
          mean_gn_error += g(i) * n_bound[place(i)] / double(c.width);
        }
        for (std::int64_t i = 0; i < c.width; ++i) {
          dx_bound[place(i)] =
              inv_std * (each * (g(i) + mean_g + 2 * std::abs(n[place(i)]) * mean_gn) +
                         n_bound[place(i)] * mean_gn + std::abs(n[place(i)]) * mean_gn_error);
          if (c.gain)
            dgain_bound[std::size_t(i)] +=
                std::abs(dy[place(i)]) *
                (n_bound[place(i)] + double(c.rows + 2) * kRounding * std::abs(n[place(i)]));
        }
      }
      CHECK(worst_ratio(floats_of(be, dx), exact.dx, dx_bound) <= 1);
      if (!c.gain) continue;
      CHECK(worst_ratio(floats_of(be, dgain), sum_of(exact.dgain, dgain_before),
                        sum_of(dgain_bound,
                               scaled_magnitudes(double(c.rows) * kRounding, dgain_before))) <= 1);
    }
  }
}

TEST_CASE("RoPE turns as the reference does, both ways, on every backend", "[reference]") {
  const std::int64_t batch = 2, tokens = 5, heads = 3, head_dim = 32, first = 7,
                     count = batch * tokens * heads * head_dim;
  const auto x = random_numbers(1, count);
  std::vector<float> table;
  for (std::int64_t position = 0; position < first + tokens; ++position)
    for (std::int64_t i = 0; i < head_dim; ++i) {
      const double angle =
          double(position) * std::pow(1e4, -2.0 * double(i % (head_dim / 2)) / double(head_dim));
      table.push_back(float(i < head_dim / 2 ? std::cos(angle) : std::sin(angle)));
    }
  // A product of two numbers of which one was rounded, twice, and their sum: 3 u (|x| + |partner|).
  Doubles bound(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    bound[i] = 3 * kRounding * (std::abs(x[i]) + std::abs(x[i % 32 < 16 ? i + 16 : i - 16]));
  for (const TestBackend& b : test_backends()) {
    for (const auto direction : {RopeDirection::forward, RopeDirection::backward}) {
      INFO(b.name);
      const auto be = b.make();
      Tensor y = to_device(*be, {batch, tokens, heads, head_dim}, x);
      be->rope(y, to_device(*be, {first + tokens, head_dim}, table), first, direction);
      CHECK(worst_ratio(floats_of(*be, y),
                        reference::rope(x, batch, tokens, heads, head_dim, 1e4, first, direction),
                        bound) <= 1);
    }
  }
}

TEST_CASE(
    "gated activations and their gradients are within fp32 rounding of the reference on every "
    "backend",
    "[reference]") {
  for (const TestBackend& b : test_backends()) {
    for (const auto activation : {Activation::silu, Activation::relu2, Activation::gelu}) {
      for (const bool gated : {true, false}) {
        INFO(b.name << " activation " << int(activation) << " gated " << gated);
        const auto backend = b.make();
        Backend& be = *backend;
        auto gate = random_numbers(1, 3 * 67, 3);
        gate[0] = 0, gate[1] = -80, gate[2] = 80;
        const auto up = gated ? random_numbers(2, 3 * 67) : Doubles{},
                   dy = random_numbers(3, 3 * 67);
        const Tensor tgate = to_device(be, {3, 67}, gate),
                     tup = gated ? to_device(be, {3, 67}, up) : Tensor();
        Tensor y = be.make_tensor(DType::f32, {3, 67}), dgate = be.make_tensor(DType::f32, {3, 67});
        Tensor dup = gated ? be.make_tensor(DType::f32, {3, 67}) : Tensor();
        be.gated_activation(activation, tgate, tup, y);
        be.gated_activation_backward(activation, tgate, tup, to_device(be, {3, 67}, dy), dgate,
                                     dup);
        // exp(x) of a rounded argument is off by |x| u; the tails of GELU cancel against 1, so
        // errors are relative to |x|, not to the result. The slope of each is at most 1.2 (2|x| for
        // ReLU²) plus x times the slope of the sigmoid, decaying fast.
        Doubles y_bound, dgate_bound, dup_bound;
        for (std::size_t i = 0; i < gate.size(); ++i) {
          const double x = std::abs(gate[i]), other = gated ? std::abs(up[i]) : 1.0;
          const double value = activation == Activation::relu2 ? 3 * kRounding * x * x
                                                               : (kFunction + 4) * kRounding * x;
          y_bound.push_back(value * other + kRounding * std::abs(value));
          dup_bound.push_back(value * std::abs(dy[i]) + kRounding * std::abs(value));
          const double slope = activation == Activation::relu2 ? 3 * kRounding * 2 * x
                                                               : (2 * kFunction + 8) * kRounding;
          dgate_bound.push_back(slope * other * std::abs(dy[i]));
        }
        CHECK(worst_ratio(floats_of(be, y), reference::gated_activation(activation, gate, up),
                          y_bound) <= 1);
        const auto exact = reference::gated_activation_backward(activation, gate, up, dy);
        CHECK(worst_ratio(floats_of(be, dgate), exact.dgate, dgate_bound) <= 1);
        if (gated) CHECK(worst_ratio(floats_of(be, dup), exact.dup, dup_bound) <= 1);
      }
    }
  }
}

TEST_CASE(
    "cross-entropy and its gradient are within fp32 rounding of the reference on every backend",
    "[reference]") {
  for (const TestBackend& b : test_backends()) {
    for (const std::int64_t vocabulary : {32, 256, 1000}) {
      INFO(b.name << " vocabulary " << vocabulary);
      const auto backend = b.make();
      Backend& be = *backend;
      const std::int64_t rows = 6;
      const float scale = 0.125f;
      const auto logits = random_numbers(1, rows * vocabulary, 6);
      auto targets = random_tokens(2, rows, vocabulary);
      targets[3] = -1;
      const Tensor tlogits = to_device(be, {rows, vocabulary}, logits),
                   ttargets = to_device(be, {rows}, targets);
      Tensor loss = be.make_tensor(DType::f32, {rows}),
             dlogits = be.make_tensor(DType::f32, {rows, vocabulary});
      be.cross_entropy(tlogits, ttargets, loss, scale, dlogits);
      // Arguments of exp are rounded at the size of the logits; then a sum of `vocabulary` positive
      // terms.
      Doubles loss_bound, dlogits_bound;
      for (std::int64_t r = 0; r < rows; ++r) {
        double largest = 0;
        for (std::int64_t i = 0; i < vocabulary; ++i)
          largest = std::max(largest, std::abs(logits[std::size_t(r * vocabulary + i)]));
        const double relative = (double(vocabulary) + 2 * kFunction + 4 * largest) * kRounding;
        loss_bound.push_back(targets[std::size_t(r)] < 0 ? 0 : relative + 4 * largest * kRounding);
        for (std::int64_t i = 0; i < vocabulary; ++i)
          dlogits_bound.push_back(targets[std::size_t(r)] < 0 ? 0 : double(scale) * relative);
      }
      CHECK(worst_ratio(floats_of(be, loss), reference::cross_entropy(logits, targets, vocabulary),
                        loss_bound) <= 1);
      auto expected = reference::cross_entropy_backward(logits, targets, vocabulary);
      for (double& value : expected) value *= double(scale);
      CHECK(worst_ratio(floats_of(be, dlogits), expected, dlogits_bound) <= 1);
    }
  }
}

TEST_CASE("AdamW is within fp32 rounding of the formula on every backend", "[reference]") {
  const std::int64_t count = 133;
  for (const TestBackend& b : test_backends()) {
    INFO(b.name);
    const auto backend = b.make();
    Backend& be = *backend;
    auto p = random_numbers(1, count), m = Doubles(count, 0.0), v = m;
    Tensor tp = to_device(be, {count}, p), tm = to_device(be, {count}, m),
           tv = to_device(be, {count}, v);
    Doubles bound(count, 0.0);
    for (std::int64_t step = 1; step <= 5; ++step) {
      const AdamWStep s{.learning_rate = 0.01,
                        .beta1 = 0.9,
                        .beta2 = 0.95,
                        .eps = 1e-8,
                        .weight_decay = 0.1,
                        .step = step,
                        .grad_scale = 0.5};
      const auto gradient = random_numbers(std::uint32_t(10 + step), count);
      be.adamw(s, to_device(be, {count}, gradient), tp, tm, tv);
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double g = gradient[i] * s.grad_scale;
        m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
        v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
        p[i] *= 1 - s.learning_rate * s.weight_decay;
        const double m_hat = m[i] / (1 - std::pow(s.beta1, double(step)));
        const double v_hat = v[i] / (1 - std::pow(s.beta2, double(step)));
        p[i] -= s.learning_rate * m_hat / (std::sqrt(v_hat) + s.eps);
        // A few roundings of p and of an update that is at most lr · sqrt(20) in size; m may
        // cancel, so its error is that of terms of size |g| <= 4.
        bound[i] += 4 * kRounding * std::abs(p[i]) +
                    s.learning_rate * 40 * kRounding * (1 + 4 / (std::sqrt(v_hat) + s.eps));
      }
    }
    CHECK(worst_ratio(floats_of(be, tp), p, bound) <= 1);
  }
}
