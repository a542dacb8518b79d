// SPDX-License-Identifier: MIT
// bit_linear of the CPU backend against the contract's formula written out: equal bits on every
// instruction set and for any number of threads, in each of the ways that it cuts its work.
#include <array>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/quant/ternary.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/support/threads.h"

namespace bitnet {
namespace {

using Floats = std::vector<float>;
using Codes = std::vector<std::int8_t>;

enum class Residual { none, apart, in_place };

struct Product {
  std::int64_t outputs = 0, groups = 0;  // groups 0: a single scale
  Residual residual = Residual::none;
  Codes trits = {};               // [N, K]
  Floats scale = {}, added = {};  // [1] or [N, groups]; [rows, N]
};

// A call's operands: the products of one quantised input.
struct Call {
  std::int64_t rows = 0, inputs = 0;
  std::vector<Product> products;
  Codes codes = {};       // [rows, K], -128 included
  Floats act_scale = {};  // [rows]
};

Floats random_floats(std::uint32_t seed, std::int64_t count) {
  const auto x = test::random_numbers(seed, count, 1.0, 0.05);
  return {x.begin(), x.end()};
}

Codes random_codes(std::uint32_t seed, std::int64_t count, std::uint32_t values, int lowest) {
  std::mt19937 random(seed);
  Codes codes(static_cast<std::size_t>(count));
  for (auto& v : codes) v = static_cast<std::int8_t>(static_cast<int>(random() % values) + lowest);
  return codes;
}

Call make_call(std::int64_t rows, std::int64_t inputs, std::vector<Product> products) {
  Call call{rows, inputs, std::move(products)};
  call.codes = random_codes(1, rows * inputs, 256, -128);
  call.act_scale = random_floats(2, rows);
  std::uint32_t seed = 3;
  for (Product& p : call.products) {
    p.trits = random_codes(seed++, p.outputs * inputs, 3, -1);
    p.scale = random_floats(seed++, p.groups == 0 ? 1 : p.outputs * p.groups);
    if (p.residual != Residual::none) p.added = random_floats(seed++, rows * p.outputs);
  }
  return call;
}

BITNET_UNWATCHED std::int32_t dot(const std::int8_t* x, const std::int8_t* w, std::size_t count) {
  std::int32_t sum = 0;
  for (std::size_t k = 0; k < count; ++k) sum += x[k] * w[k];
  return sum;
}

Floats define(const Call& call, const Product& p) {
  const auto rows = static_cast<std::size_t>(call.rows), n = static_cast<std::size_t>(p.outputs),
             k = static_cast<std::size_t>(call.inputs);
  const auto groups = static_cast<std::size_t>(p.groups);
  Floats y(rows * n);
  for (std::size_t t = 0; t < rows; ++t) {
    for (std::size_t o = 0; o < n; ++o) {
      const std::int8_t *x = &call.codes[t * k], *w = &p.trits[o * k];
      float product = 0;
      if (groups == 0) {
        product = (call.act_scale[t] * p.scale[0]) * static_cast<float>(dot(x, w, k));
      } else {
        const std::size_t size = k / groups;
        float sum = 0;
        for (std::size_t g = 0; g < groups; ++g) {
          const auto partial = static_cast<float>(dot(x + g * size, w + g * size, size));
          sum = std::fma(p.scale[o * groups + g], partial, sum);
        }
        product = sum * call.act_scale[t];
      }
      y[t * n + o] = p.added.empty() ? product : p.added[t * n + o] + product;
    }
  }
  return y;
}

std::vector<Floats> run(Backend& be, const Call& call) {
  std::vector<Tensor> kept;
  kept.reserve(4 * call.products.size());
  const auto keep = [&](Tensor t) -> TensorView { return kept.emplace_back(std::move(t)); };
  std::vector<BitLinearProduct> products;
  for (const Product& p : call.products) {
    std::vector<std::uint8_t> packed(p.trits.size() / 4);
    pack_codes(p.trits, p.outputs, call.inputs, packed);
    const Shape y_shape{call.rows, p.outputs};
    BitLinearProduct& product = products.emplace_back();
    product.packed = keep(test::to_device(be, {p.outputs / 4, call.inputs}, packed));
    product.weight_scale =
        keep(test::to_device(be, p.groups == 0 ? Shape{1} : Shape{p.outputs, p.groups}, p.scale));
    // What y held before must not matter.
    product.y = keep(test::to_device(be, y_shape, Floats(std::size_t(y_shape.elements()), 77.0f)));
    if (p.residual == Residual::apart) {
      product.residual = keep(test::to_device(be, y_shape, p.added));
    } else if (p.residual == Residual::in_place) {
      be.copy_from_host(p.added.data(), product.y);
      product.residual = product.y;
    }
  }
  be.bit_linear(test::to_device(be, {call.rows, call.inputs}, call.codes),
                test::to_device(be, {call.rows}, call.act_scale), products);
  std::vector<Floats> results;
  for (const BitLinearProduct& product : products) {
    results.push_back(test::floats_of(be, product.y));
  }
  return results;
}

void check_definition(const Call& call, std::initializer_list<int> teams) {
  std::vector<Floats> expected;
  for (const Product& p : call.products) expected.push_back(define(call, p));
  for (const std::string& isa : available_cpu_isas()) {
    for (const int threads : test::team_sizes(teams)) {
      const auto backend = make_cpu_backend(threads, isa);
      const auto actual = run(*backend, call);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        INFO(backend->detail() << ": " << call.rows << " tokens, " << call.inputs << " -> "
                               << call.products[i].outputs << ", product " << i);
        CHECK(actual[i] == expected[i]);
      }
    }
  }
}

TEST_CASE("bit_linear is the contract's formula, bit for bit", "[cpu]") {
  const auto [rows, inputs, outputs, groups] = GENERATE(table<int, int, int, int>({
      {1, 64, 4, 0},
      {1, 256, 256, 0},
      {7, 192, 20, 0},
      {100, 320, 276, 0},  // more tokens, and more packed rows, than a tile holds
      {200, 64, 1028, 0},
      {1, 128, 8, 2},
      {101, 320, 276, 5},
      {3, 320, 4100, 5},  // more packed rows than are joined to a tile
      {5, 384, 36, 2},
  }));
  check_definition(make_call(rows, inputs, {{outputs, groups}}), {1, 3});
}

TEST_CASE("bit_linear is the formula where rows and contraction take several tiles", "[cpu]") {
  const auto [rows, inputs, outputs] = GENERATE(table<int, int, int>({
      {33, 1088, 2084},   // a contraction of two stretches, panels in several tiles
      {270, 2112, 1100},  // and several tiles of tokens
      {12, 576, 1100},    // several blocks of streamed tokens
      {31, 576, 300},
      {1, 64, 20484},  // more packed rows than are joined to a tile, by half of a thread's part
      {1, 64, 8196},   // several tasks of short rows
      {1, 2560, 1100},
      {1, 2048, 4096},
      {1, 2048, 4100},
      {2, 1088, 1100},
      {2, 576, 8452},  // the same for two tokens
  }));
  check_definition(make_call(rows, inputs, {{outputs}}), {2});
}

TEST_CASE("bit_linear is the formula where products of unequal sizes are cut for the team") {
  // q, k and v of four query heads to a key head; the second with parts of a task.
  check_definition(make_call(1, 2048, {{2560}, {640}, {640}}), {1, 2, 3, 4});
  check_definition(make_call(3, 704, {{1284}, {324}, {324}}), {2, 3});
}

TEST_CASE("bit_linear adds residuals to products of one call that differ in size and scales",
          "[cpu]") {
  const std::int64_t rows = GENERATE(1, 3, 40, 130);
  check_definition(
      make_call(
          rows, 320,
          {{276, 0, Residual::apart}, {68, 5, Residual::in_place}, {1028, 0, Residual::in_place}}),
      {1, 2});
  check_definition(make_call(rows, 128, {{20, 2, Residual::apart}, {2052, 0, Residual::none}}),
                   {1, 2});
}

TEST_CASE("bit_linear adds the residual of a large product", "[cpu]") {
  const Residual residual = GENERATE(Residual::apart, Residual::in_place);
  const std::int64_t outputs = GENERATE(2048, 2052);  // whole tasks, or not
  check_definition(make_call(1, 2112, {{outputs, 0, residual}}), {1, 2});
}

}  // namespace
}  // namespace bitnet
