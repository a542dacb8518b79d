// SPDX-License-Identifier: MIT
// The operations that an int8 output head and a bf16 table need: the bits of their definitions.
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/quant/ternary.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/support/threads.h"

namespace bitnet {
namespace {

std::vector<float> random_floats(std::int64_t count, std::uint32_t seed) {
  const std::vector<double> numbers = test::random_numbers(seed, count);
  return {numbers.begin(), numbers.end()};
}

BITNET_UNWATCHED std::int32_t dot(const std::int8_t* x, const std::int8_t* w, std::size_t count) {
  std::int32_t sum = 0;
  for (std::size_t k = 0; k < count; ++k) sum += x[k] * w[k];
  return sum;
}

// The upper halves of the floats, and the floats that these stand for.
struct Halves {
  explicit Halves(const std::vector<float>& values) {
    for (const float value : values) {
      std::uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      halves.push_back(static_cast<std::uint16_t>(bits >> 16));
      bits &= 0xffff0000u;
      widened.emplace_back();
      std::memcpy(&widened.back(), &bits, sizeof bits);
    }
  }
  Tensor to_device(Backend& backend, Shape shape) const {
    Tensor tensor = backend.make_tensor(DType::bf16, shape);
    backend.copy_from_host(halves.data(), tensor);
    return tensor;
  }
  std::vector<std::uint16_t> halves;
  std::vector<float> widened;
};

TEST_CASE("int8_linear is the integer product with both scales") {
  const auto backend = test::generated_backend().make();
  INFO(backend->detail());
  struct {
    std::int64_t rows, outputs, inputs;
  } const shapes[] = {{1, 1, 1},  {1, 700, 640},    {5, 333, 96},  {67, 32, 64},
                      {2, 9, 40}, {130, 5000, 256}, {1, 8203, 512}};  // 17 tiles: eight at a time
  for (const auto& [rows, outputs, inputs] : shapes) {
    const auto x = random_floats(rows * inputs, 1), w = random_floats(outputs * inputs, 2);
    Tensor x_codes = backend->make_tensor(DType::i8, {rows, inputs}),
           w_codes = backend->make_tensor(DType::i8, {outputs, inputs}),
           x_scale = backend->make_tensor(DType::f32, {rows}),
           w_scale = backend->make_tensor(DType::f32, {outputs}),
           y = backend->make_tensor(DType::f32, {rows, outputs});
    backend->quantize_activations(test::to_device(*backend, {rows, inputs}, x), x_codes, x_scale);
    backend->quantize_activations(test::to_device(*backend, {outputs, inputs}, w), w_codes,
                                  w_scale);
    backend->int8_linear(x_codes, x_scale, w_codes, w_scale, y);

    const auto columns = static_cast<std::size_t>(inputs);
    std::vector<std::int8_t> xq(x.size()), wq(w.size());
    std::vector<float> row_scales, expected;
    for (std::size_t n = 0; n < w.size(); n += columns) {
      row_scales.push_back(
          quantize_token(std::span(w).subspan(n, columns), std::span(wq).subspan(n, columns)));
    }
    for (std::size_t t = 0; t < x.size(); t += columns) {
      const float token_scale =
          quantize_token(std::span(x).subspan(t, columns), std::span(xq).subspan(t, columns));
      for (std::size_t n = 0; n < w.size(); n += columns) {
        const std::int32_t sum = dot(&xq[t], &wq[n], columns);
        expected.push_back((token_scale * row_scales[n / columns]) * static_cast<float>(sum));
      }
    }
    CHECK(test::floats_of(*backend, y) == expected);
  }
}

TEST_CASE("int8_linear refuses shapes that do not belong together") {
  const auto backend = test::default_backend().make();
  Tensor codes = backend->make_tensor(DType::i8, {2, 64}),
         scale = backend->make_tensor(DType::f32, {2});
  Tensor weights = backend->make_tensor(DType::i8, {8, 32}),
         row_scale = backend->make_tensor(DType::f32, {8});
  Tensor y = backend->make_tensor(DType::f32, {2, 8});
  CHECK_THROWS_AS(backend->int8_linear(codes, scale, weights, row_scale, y), ContractError);
}

TEST_CASE("a bf16 table is looked up, quantised and converted as its exact floats are") {
  const auto backend = test::generated_backend().make();
  INFO(backend->detail());
  const std::int64_t rows = 37, columns = 80;
  const Halves values(random_floats(rows * columns, 3));
  const Tensor table = values.to_device(*backend, {rows, columns}),
               floats = test::to_device(*backend, {rows, columns}, values.widened);

  Tensor converted = backend->make_tensor(DType::f32, {rows, columns});
  backend->convert(table, converted);
  CHECK(test::floats_of(*backend, converted) == values.widened);

  const auto ids = test::random_tokens(4, 50, rows);
  const Tensor tokens = test::to_device(*backend, {50}, ids);
  Tensor looked_up = backend->make_tensor(DType::f32, {50, columns}),
         expected = backend->make_tensor(DType::f32, {50, columns});
  backend->embedding(tokens, table, looked_up);
  backend->embedding(tokens, floats, expected);
  CHECK(test::floats_of(*backend, looked_up) == test::floats_of(*backend, expected));

  const auto quantized = [&](ConstTensorView x) {
    Tensor codes = backend->make_tensor(DType::i8, {rows, columns}),
           scale = backend->make_tensor(DType::f32, {rows});
    backend->quantize_activations(x, codes, scale);
    return std::pair(test::to_host<std::int8_t>(*backend, codes), test::floats_of(*backend, scale));
  };
  CHECK(quantized(table) == quantized(floats));
}

TEST_CASE("valid_codes finds the value 3 anywhere") {
  const auto backend = test::generated_backend().make();
  std::vector<std::uint8_t> packed(600'001, 0x5a);
  const auto valid = [&] {
    return backend->valid_codes(
        test::to_device(*backend, {static_cast<std::int64_t>(packed.size())}, packed));
  };
  CHECK(valid());
  for (const std::size_t place : {std::size_t{0}, std::size_t{300'000}, packed.size() - 1}) {
    packed[place] = 0x5b;
    CHECK(!valid());
    packed[place] = 0x5a;
  }
}

}  // namespace
}  // namespace bitnet
