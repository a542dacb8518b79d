// SPDX-License-Identifier: MIT
// Facts of the float operations that a comparison with a reference on random numbers does not show.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
using Floats = std::vector<float>;

Tensor tensor(Backend& be, const Shape& shape, const Floats& values) {
  return test::to_device(be, shape, values);
}

Tensor random_tensor(Backend& be, const Shape& shape, std::uint32_t seed) {
  return test::to_device(be, shape, test::random_numbers(seed, shape.elements()));
}

TEST_CASE("silu and gelu are within a few roundings of double everywhere") {
  const test::TestBackend b = test::generated_backend();
  const auto be = b.make();
  Floats x;
  for (double v = -90; v <= 90; v += 0.0037) x.push_back(static_cast<float>(v));
  const auto n = static_cast<std::int64_t>(x.size());
  Tensor gate = tensor(*be, {n}, x), y = be->make_tensor(DType::f32, {n});
  be->gated_activation(Activation::silu, gate, {}, y);
  const Floats silu = test::floats_of(*be, y);
  be->gated_activation(Activation::gelu, gate, {}, y);
  const Floats gelu = test::floats_of(*be, y);
  double silu_worst = 0, gelu_worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], scale = test::kRounding * std::abs(v);
    // The sigmoid: exp, +, / and the product, relative to x.
    silu_worst = std::max(silu_worst, std::abs(silu[i] - v / (1 + std::exp(-v))) / scale);
    // Φ: of size at most 1; its tail is at most 0.5 and has the roundings of x² / 2, of exp and of
    // the polynomial's value.
    gelu_worst =
        std::max(gelu_worst, std::abs(gelu[i] - 0.5 * v * std::erfc(-v / std::sqrt(2.0))) / scale);
  }
  CHECK(silu_worst <= b.function_roundings + 3);
  CHECK(gelu_worst <= b.function_roundings + 3);
}

TEST_CASE("cross_entropy ignores the target -1 and may overwrite the logits") {
  const auto be = test::generated_backend().make();
  Tensor logits = random_tensor(*be, {4, 50}, 2), copy = random_tensor(*be, {4, 50}, 2);
  Tensor targets = test::to_device(*be, {4}, std::vector<std::int32_t>{3, -1, 0, 49});
  Tensor loss = tensor(*be, {4}, {9, 9, 9, 9}), gradient = be->make_tensor(DType::f32, {4, 50});
  be->cross_entropy(logits, targets, loss, 0.5f, gradient);
  const Floats losses = test::floats_of(*be, loss), gradients = test::floats_of(*be, gradient);
  CHECK(losses[1] == 0.0f);
  CHECK(losses[0] > 0.0f);
  CHECK(Floats(gradients.begin() + 50, gradients.begin() + 100) == Floats(50, 0.0f));
  be->cross_entropy(copy, targets, loss, 0.5f, copy);
  CHECK(test::floats_of(*be, copy) == gradients);
  CHECK(test::floats_of(*be, loss) == losses);
}

TEST_CASE("cross_entropy of huge logits neither overflows nor loses the loss") {
  const auto be = test::generated_backend().make();
  Tensor logits = tensor(*be, {1, 3}, {3e38f, -3e38f, 1e38f}),
         loss = be->make_tensor(DType::f32, {1});
  Tensor targets = test::to_device(*be, {1}, std::vector<std::int32_t>{0});
  be->cross_entropy(logits, targets, loss, 1.0f, {});
  CHECK(test::floats_of(*be, loss) == Floats{0.0f});
}

TEST_CASE("embedding rows are copies and its gradient adds up repeated tokens") {
  const auto be = test::generated_backend().make();
  Tensor table = random_tensor(*be, {5, 70}, 3), y = be->make_tensor(DType::f32, {3, 70});
  Tensor tokens = test::to_device(*be, {3}, std::vector<std::int32_t>{4, 0, 4});
  be->embedding(tokens, table, y);
  const Floats rows = test::floats_of(*be, y), all = test::floats_of(*be, table);
  CHECK(Floats(rows.begin(), rows.begin() + 70) == Floats(all.begin() + 280, all.end()));
  CHECK(Floats(rows.begin() + 70, rows.begin() + 140) == Floats(all.begin(), all.begin() + 70));
  Tensor dtable = tensor(*be, {5, 70}, Floats(350, 1.0f)),
         dy = tensor(*be, {3, 70}, Floats(210, 0.5f));
  be->embedding_backward(tokens, dy, dtable);
  const Floats gradient = test::floats_of(*be, dtable);
  CHECK(gradient[0] == 1.5f);
  CHECK(gradient[70] == 1.0f);
  CHECK(gradient[349] == 2.0f);
}

TEST_CASE("dropout keeps exactly the elements whose random word is large enough") {
  const auto be = test::generated_backend().make();
  const double p = 0.25;
  const RandomStream stream{7, RandomPurpose::dropout, 3};
  const std::int64_t n = 40003;  // several tasks and a tail
  Tensor x = tensor(*be, {n}, Floats(static_cast<std::size_t>(n), 3.0f));
  be->dropout(x, p, stream, 8, x);
  const Floats y = test::floats_of(*be, x);
  std::int64_t wrong = 0, kept = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const bool keep = stream.block(2 + i / 4)[i % 4] >= 0x40000000u;
    kept += keep;
    wrong += y[i] != (keep ? 4.0f : 0.0f);
  }
  CHECK(wrong == 0);
  CHECK(std::abs(static_cast<double>(kept) - 0.75 * n) <=
        5 * std::sqrt(n * p * (1 - p)));  // five deviations
  CHECK_THROWS_AS(be->dropout(x, 1.0, stream, 0, x), ContractError);
  CHECK_THROWS_AS(be->dropout(x, 0.5, stream, 2, x), ContractError);
}

TEST_CASE("sums are exact where every partial sum is") {
  const auto be = test::generated_backend().make();
  const std::int64_t n = 100001;
  Floats x;
  for (std::int64_t i = 0; i < n; ++i) x.push_back(static_cast<float>(i % 1000 - 300));
  double sum = 0, squares = 0;
  for (const double v : x) {
    sum += v;
    squares += v * v;
  }
  Tensor t = tensor(*be, {n}, x);
  CHECK(be->sum(t) == sum);
  CHECK(be->sum_of_squares(t) == squares);
  CHECK(be->sum(TensorView{}) == 0.0);
}

TEST_CASE("the sums of many tensors, and of their squares, are those of each") {
  const auto be = test::generated_backend().make();
  std::vector<Tensor> tensors;
  for (std::uint32_t i = 0; i < 5; ++i)
    tensors.push_back(random_tensor(*be, {1 + std::int64_t{1700} * i}, i));
  const std::vector<ConstTensorView> views(tensors.begin(), tensors.end());
  const auto first = std::span(views).first(2), others = std::span(views).subspan(1);
  std::vector<double> sums(6), expected;
  for (const ConstTensorView& x : first) expected.push_back(be->sum(x));
  for (const ConstTensorView& x : others) expected.push_back(be->sum_of_squares(x));
  be->sums(first, others, sums);
  CHECK(sums == expected);
  CHECK_THROWS_AS(be->sums(first, {}, sums), ContractError);
}

TEST_CASE("AdamW on many parameters is AdamW on each, and decays those that decay") {
  const auto be = test::generated_backend().make();
  const AdamWStep step{.learning_rate = 0.01, .weight_decay = 0.5, .step = 3, .grad_scale = 0.7};
  std::vector<Tensor> many, one_by_one;  // gradient, parameter, m, v of each
  std::vector<AdamWParameter> parameters;
  for (std::uint32_t i = 0; i < 3; ++i) {
    const std::int64_t count = 5 + std::int64_t{5000} * i;
    for (std::vector<Tensor>* to : {&many, &one_by_one}) {
      for (std::uint32_t part = 0; part < 4; ++part) {
        to->push_back(random_tensor(*be, {count}, 4 * i + part));
        if (part == 3)  // a sum of squares
          be->gated_activation(Activation::relu2, to->back(), {}, to->back());
      }
    }
  }
  for (std::size_t i = 0; i < 3; ++i) {
    Tensor *const a = &many[4 * i], *const b = &one_by_one[4 * i];
    const bool decays = i != 1;
    parameters.push_back({a[0], a[1], a[2], a[3], decays});
    AdamWStep of_one = step;
    if (!decays) of_one.weight_decay = 0;
    be->adamw(of_one, b[0], b[1], b[2], b[3]);
  }
  be->adamw(step, parameters);
  for (std::size_t i = 0; i < many.size(); ++i)
    CHECK(test::floats_of(*be, many[i]) == test::floats_of(*be, one_by_one[i]));
}

TEST_CASE("gradients overwrite or accumulate as the contract says, and absent ones are skipped") {
  const auto be = test::generated_backend().make();
  // 2 tokens, 1 input, 1 output: dx = dy w, dw += sum of dy x.
  Tensor x = tensor(*be, {2, 1}, {2, 3}), w = tensor(*be, {1, 1}, {5}),
         dy = tensor(*be, {2, 1}, {1, 10});
  Tensor dx = tensor(*be, {2, 1}, {100, 100}), dw = tensor(*be, {1, 1}, {1000});
  be->linear_backward(x, w, dy, dx, false, {});
  CHECK(test::floats_of(*be, dx) == Floats{5, 50});
  be->linear_backward(x, w, dy, dx, true, dw);
  CHECK(test::floats_of(*be, dx) == Floats{10, 100});
  CHECK(test::floats_of(*be, dw) == Floats{1032});
  be->linear_backward(x, w, dy, {}, false, dw);
  CHECK(test::floats_of(*be, dw) == Floats{1064});
}

TEST_CASE("NaN comes through every float operation") {
  const auto be = test::generated_backend().make();
  const std::int64_t width = 48;
  Floats values(static_cast<std::size_t>(2 * width), 0.5f);
  values[5] = kNaN;
  Tensor x = tensor(*be, {2, width}, values), y = be->make_tensor(DType::f32, {2, width});
  Tensor stats = be->make_tensor(DType::f32, {2, 2}),
         clean = tensor(*be, {2, width}, Floats(96, 0.5f));
  const auto nan_at = [&](ConstTensorView t, std::size_t i) {
    return std::isnan(test::floats_of(*be, t)[i]);
  };
  be->norm(NormKind::rms, x, {}, 1e-5f, y, stats);
  CHECK(nan_at(y, 0));
  CHECK_FALSE(nan_at(y, 48));
  for (const Activation activation : {Activation::silu, Activation::relu2, Activation::gelu}) {
    be->gated_activation(activation, x, {}, y);
    CHECK(nan_at(y, 5));
    CHECK_FALSE(nan_at(y, 4));
  }
  Tensor product = be->make_tensor(DType::f32, {2, 2});
  be->linear(x, clean, product);
  CHECK(nan_at(product, 0));
  CHECK_FALSE(nan_at(product, 2));
  Tensor loss = be->make_tensor(DType::f32, {2}),
         targets = test::to_device(*be, {2}, std::vector<std::int32_t>{0, 0});
  be->cross_entropy(x, targets, loss, 1.0f, y);
  CHECK(nan_at(loss, 0));
  CHECK(nan_at(y, 7));
  const Shape heads{1, 2, 3, 16};
  be->attention({1, 2, 2, 3, 3, 16, 0}, x.view().reshaped(heads), clean.view().reshaped(heads),
                clean.view().reshaped(heads), y.view().reshaped(heads), {});
  CHECK(nan_at(y, 0));
  CHECK_FALSE(nan_at(y, 48));
  Tensor m = be->make_tensor(DType::f32, {2, width}), v = be->make_tensor(DType::f32, {2, width});
  be->adamw({.learning_rate = 0.1}, x, clean, m, v);
  CHECK(nan_at(clean, 5));
  CHECK_FALSE(nan_at(clean, 4));
  CHECK(std::isnan(be->sum_of_squares(x)));
}

TEST_CASE("wrong shapes are refused") {
  const auto be = test::default_backend().make();
  const auto zeros = [&](Shape shape) { return be->make_tensor(DType::f32, shape); };
  Tensor a = zeros({4, 32}), b = zeros({4, 16}), stats = zeros({4, 2}),
         heads = zeros({1, 4, 2, 16});
  CHECK_THROWS_AS(be->linear(a, b, b), ContractError);
  CHECK_THROWS_AS(be->linear_backward(a, a, b, {}, false, {}), ContractError);
  CHECK_THROWS_AS(be->norm(NormKind::rms, a, {}, 0, b, stats), ContractError);
  CHECK_THROWS_AS(be->norm(NormKind::rms, a, b, 0, a, stats), ContractError);
  CHECK_THROWS_AS(be->add(a, b, a), ContractError);
  CHECK_THROWS_AS(be->gated_activation(Activation::silu, a, b, a), ContractError);
  CHECK_THROWS_AS(be->gated_activation_backward(Activation::silu, a, a, a, a, {}), ContractError);
  CHECK_THROWS_AS(be->adamw({}, a, b, a, a), ContractError);
  CHECK_THROWS_AS(be->rope(heads, zeros({3, 16}), 0, RopeDirection::forward), ContractError);
  const auto attend = [&](const AttentionShape& s) {
    be->attention(s, heads, heads, heads, heads, {});
  };
  CHECK_THROWS_AS(attend({1, 4, 4, 2, 2, 8, 0}), ContractError);   // head_dim
  CHECK_THROWS_AS(attend({1, 4, 4, 2, 2, 16, 1}), ContractError);  // beyond the keys
  CHECK_THROWS_AS(attend({1, 4, 4, 2, 0, 16, 0}), ContractError);  // no key heads
  CHECK_THROWS_AS(attend({2, 4, 4, 2, 2, 16, 0}), ContractError);  // batch
  Tensor tokens = be->make_tensor(DType::i32, {4});
  CHECK_THROWS_AS(be->embedding(a, a, a), ContractError);  // tokens are not i32
  CHECK_THROWS_AS(be->embedding(tokens, a, zeros({3, 32})), ContractError);
}

}  // namespace
}  // namespace bitnet
