// SPDX-License-Identifier: MIT
// bit_linear of several projections that share an input, with and without residuals, against sums
// written out: equal bits for any number of tokens, in each of the ways that a backend chooses from by
// shape.
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/support/threads.h"

namespace bitnet {
namespace {

enum class Residual { none, apart, in_place };

struct Projection {
  std::int64_t outputs, groups;  // groups 0: a single scale
  Residual residual;
};

std::vector<float> random_floats(std::int64_t count, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = uniform(random);
  return x;
}

std::vector<std::uint8_t> random_packed(std::int64_t count, std::mt19937& random) {
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(count));
  for (auto& byte : packed) {
    unsigned bits = 0;
    for (int i = 0; i < 4; ++i) bits |= (random() % 3) << (2 * i);
    byte = static_cast<std::uint8_t>(bits);
  }
  return packed;
}

// Of codes and the trits that lie at `shift` in packed bytes.
BITNET_UNWATCHED std::int32_t dot(const std::int8_t* x, const std::uint8_t* packed, int shift,
                                  std::size_t count) {
  std::int32_t sum = 0;
  for (std::size_t c = 0; c < count; ++c) sum += (((packed[c] >> shift) & 3) - 1) * x[c];
  return sum;
}

// Output (t, n) of the contract's formula.
float output(const std::vector<std::int8_t>& x, std::size_t inputs, std::size_t t, float act_scale,
             const std::vector<std::uint8_t>& packed, std::size_t quarter,
             const std::vector<float>& scales, std::size_t n) {
  const std::size_t groups = scales.size() == 1 ? 1 : scales.size() / (4 * quarter);
  const std::size_t size = inputs / groups, row = n % quarter;
  const auto shift = static_cast<int>(2 * (n / quarter));
  float sum = 0;
  for (std::size_t g = 0; g < groups; ++g) {
    const auto product = static_cast<float>(
        dot(&x[t * inputs + g * size], &packed[row * inputs + g * size], shift, size));
    if (scales.size() == 1) return (act_scale * scales[0]) * product;
    sum = std::fma(scales[n * groups + g], product, sum);
  }
  return sum * act_scale;
}

// Runs all projections in one call and compares each with the formula.
void check(Backend& backend, std::int64_t tokens, std::int64_t inputs,
           const std::vector<Projection>& projections) {
  INFO(tokens << " tokens, " << inputs << " inputs");
  std::mt19937 random(static_cast<unsigned>(tokens + inputs));
  std::vector<std::int8_t> x(static_cast<std::size_t>(tokens * inputs));
  for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  const auto act_scale = random_floats(tokens, random);
  const Tensor codes = test::to_device(backend, {tokens, inputs}, x);
  const Tensor device_act_scale = test::to_device(backend, {tokens}, act_scale);

  std::vector<Tensor> tensors;  // keeps the operands alive
  std::vector<BitLinearProduct> products;
  std::vector<std::vector<float>> expected;
  for (const Projection& p : projections) {
    const auto packed = random_packed(p.outputs / 4 * inputs, random);
    const auto scales = random_floats(p.groups == 0 ? 1 : p.outputs * p.groups, random);
    const auto residual = random_floats(tokens * p.outputs, random);
    const auto keep = [&](Tensor t) {
      tensors.push_back(std::move(t));
      return tensors.back().view();
    };
    const Shape shape{tokens, p.outputs};
    BitLinearProduct product;
    product.packed = keep(test::to_device(backend, {p.outputs / 4, inputs}, packed));
    product.weight_scale = keep(
        test::to_device(backend, p.groups == 0 ? Shape{1} : Shape{p.outputs, p.groups}, scales));
    product.y = keep(test::to_device(backend, shape, residual));
    if (p.residual == Residual::apart) {
      product.residual = keep(test::to_device(backend, shape, residual));
    } else if (p.residual == Residual::in_place) {
      product.residual = product.y;
    }
    products.push_back(product);

    expected.emplace_back(residual.size());
    const auto n = static_cast<std::size_t>(p.outputs);
    for (std::size_t i = 0; i < residual.size(); ++i) {
      const float sum = output(x, static_cast<std::size_t>(inputs), i / n, act_scale[i / n], packed,
                               n / 4, scales, i % n);
      expected.back()[i] = p.residual == Residual::none ? sum : residual[i] + sum;
    }
  }
  backend.bit_linear(codes, device_act_scale, products);
  for (std::size_t p = 0; p < products.size(); ++p) {
    INFO("projection " << p);
    std::vector<float> y(expected[p].size());
    backend.copy_to_host(products[p].y, y.data());
    CHECK(y == expected[p]);
  }
}

TEST_CASE("projections that share an input are each the contract's formula plus the residual") {
  const auto backend = test::generated_backend().make();
  INFO(backend->detail());
  const std::vector<Projection> q_k_v = {
      {132, 0, Residual::none}, {20, 0, Residual::apart}, {76, 0, Residual::in_place}};
  for (const std::int64_t tokens : {1, 2, 7, 8, 9, 31, 32, 33}) check(*backend, tokens, 128, q_k_v);
  for (const std::int64_t tokens : {1, 6, 40}) check(*backend, tokens, 1088, q_k_v);
}

TEST_CASE("products are exact for more tokens, rows and columns than a tile holds") {
  const auto backend = test::generated_backend().make();
  INFO(backend->detail());
  check(*backend, 531, 64, {{84, 0, Residual::in_place}});
  check(*backend, 33, 2112, {{28, 0, Residual::none}, {8, 0, Residual::in_place}});
  check(*backend, 270, 64, {{1100, 0, Residual::none}});
}

TEST_CASE("grouped and single scales mix in one call") {
  const auto backend = test::generated_backend().make();
  INFO(backend->detail());
  const std::vector<Projection> mixed = {
      {36, 3, Residual::none}, {36, 0, Residual::none}, {268, 1, Residual::in_place}};
  for (const std::int64_t tokens : {1, 5, 100}) check(*backend, tokens, 192, mixed);
}

TEST_CASE("bit_linear refuses a residual of another shape and too many products") {
  const auto backend = test::default_backend().make();
  const Tensor codes = backend->make_tensor(DType::i8, {2, 64});
  const Tensor act_scale = backend->make_tensor(DType::f32, {2});
  const Tensor packed = backend->make_tensor(DType::u8, {1, 64});
  const Tensor scale = backend->make_tensor(DType::f32, {1});
  Tensor y = backend->make_tensor(DType::f32, {2, 4});
  const Tensor wrong = backend->make_tensor(DType::f32, {2, 8});
  CHECK_THROWS_AS(backend->bit_linear(codes, act_scale, {packed, scale, y, wrong}), ContractError);
  const std::vector<BitLinearProduct> many(9, BitLinearProduct{packed, scale, y});
  CHECK_THROWS_AS(backend->bit_linear(codes, act_scale, many), ContractError);
  backend->bit_linear(codes, act_scale, std::vector<BitLinearProduct>{});  // nothing to do
}

}  // namespace
}  // namespace bitnet
