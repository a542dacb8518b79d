// SPDX-License-Identifier: MIT
// Products of floats and their gradients, with cuBLASLt and without.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "cuda/cuda_backend.h"
#include "tests/cuda/act_tensors.h"
#include "tests/cuda/bf16_products.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::as_floats;
using test::floats_of;
using test::kSumRounding;
using test::magnitudes;
using test::new_backend;
using test::product_bound;
using test::random_numbers;
using test::scaled_magnitudes;
using test::sum_of;
using test::to_device;
using test::worst_ratio;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

Doubles integers(std::uint32_t seed, std::int64_t count) {
  Doubles x = random_numbers(seed, count, 3);
  for (double& v : x) v = std::nearbyint(v);
  return x;
}

struct Case {
  std::int64_t rows, outputs, inputs;
  Doubles x, w, dy, dx, dw;  // dx and dw: before

  // Numbers whose products have exact sums, or any.
  Case(std::int64_t r, std::int64_t n, std::int64_t k, bool exact)
      : rows(r), outputs(n), inputs(k) {
    const auto numbers = [&](std::uint32_t seed, std::int64_t count) {
      return exact ? integers(seed, count) : random_numbers(seed, count);
    };
    x = numbers(1, r * k);
    w = numbers(2, n * k);
    dy = numbers(3, r * n);
    dx = numbers(4, r * k);
    dw = numbers(5, n * k);
  }
  // Of numbers of bf16.
  void narrow() {
    for (Doubles* part : {&x, &w, &dy, &dx, &dw}) {
      const Floats rounded = test::rounded_to_bf16(Floats(part->begin(), part->end()));
      part->assign(rounded.begin(), rounded.end());
    }
  }
  void describe() const {
    UNSCOPED_INFO("rows " << rows << " outputs " << outputs << " inputs " << inputs);
  }
};

std::vector<Case> cases(bool exact) {
  std::vector<Case> all;
  for (const auto& [rows, outputs, inputs] : {std::array<std::int64_t, 3>{1, 1, 1},
                                              {1, 4, 64},
                                              {5, 3, 7},
                                              {33, 68, 128},
                                              {19, 40, 48},  // read by cuBLASLt as they are
                                              {71, 257, 66}}) {
    all.emplace_back(rows, outputs, inputs, exact);
  }
  return all;
}

Doubles product(const Case& c) { return reference::linear(c.x, c.w, c.rows, c.outputs, c.inputs); }

// The types of what may be bf16.
struct Types {
  DType x = DType::f32, y = DType::f32, dx = DType::f32;  // dy: as y
};
const std::vector<Types>& all_types() {
  static const std::vector<Types> all = [] {
    std::vector<Types> types;
    for (const DType x : {DType::f32, DType::bf16}) {
      for (const DType y : {DType::f32, DType::bf16}) {
        for (const DType dx : {DType::f32, DType::bf16}) types.push_back({x, y, dx});
      }
    }
    return types;
  }();
  return all;
}

Floats linear(Backend& gpu, const Case& c, const Types& types = {}) {
  Tensor y = gpu.make_tensor(types.y, {c.rows, c.outputs});
  gpu.linear(test::act_to_device(gpu, types.x, {c.rows, c.inputs}, as_floats(c.x)),
             to_device(gpu, {c.outputs, c.inputs}, c.w), y);
  return test::act_floats(gpu, y);
}

struct Wanted {
  bool dx, dw, accumulate_dx;
};
struct Gradients {
  Floats dx, dw;
};

Gradients linear_backward(Backend& gpu, const Case& c, const Wanted& wanted,
                          const Types& types = {}) {
  const Tensor x = test::act_to_device(gpu, types.x, {c.rows, c.inputs}, as_floats(c.x)),
               w = to_device(gpu, {c.outputs, c.inputs}, c.w),
               dy = test::act_to_device(gpu, types.y, {c.rows, c.outputs}, as_floats(c.dy));
  Tensor dx = test::act_to_device(gpu, types.dx, {c.rows, c.inputs}, as_floats(c.dx)),
         dw = to_device(gpu, {c.outputs, c.inputs}, c.dw);
  gpu.linear_backward(x, w, dy, wanted.dx ? dx.view() : TensorView(), wanted.accumulate_dx,
                      wanted.dw ? dw.view() : TensorView());
  return {test::act_floats(gpu, dx), floats_of(gpu, dw)};
}

TEST_CASE("linear on the GPU is exact where bf16 and fp32 are") {
  for (const Case& c : cases(true)) {
    test::in_each_execution([&] {
      c.describe();
      CHECK(linear(*make_cuda_backend(), c) == as_floats(product(c)));
    });
  }
}

TEST_CASE("linear on the GPU is within the rounding of its operands to bf16") {
  for (const Case& c : cases(false)) {
    c.describe();
    const auto gpu = new_backend(true);
    const Doubles size =
        reference::linear(magnitudes(c.x), magnitudes(c.w), c.rows, c.outputs, c.inputs);
    CHECK(worst_ratio(linear(*gpu, c), product(c),
                      scaled_magnitudes(product_bound(2, c.inputs), size)) <= 1);
  }
}

TEST_CASE("a row of linear on the GPU has the same bits alone and in a batch of any size") {
  const auto gpu = new_backend(true);
  const std::int64_t outputs = 1024, inputs = 12;
  const Case one(1, outputs, inputs, false);
  const Floats alone = linear(*gpu, one);
  for (const std::int64_t rows : {2, 65, 2048}) {  // in tiles for few rows, small and large ones
    Case many(rows, outputs, inputs, false);
    std::copy(one.x.begin(), one.x.end(), many.x.end() - inputs);
    const Floats y = linear(*gpu, many);
    CHECK(Floats(y.end() - outputs, y.end()) == alone);
  }
}

TEST_CASE("linear_backward on the GPU is exact where bf16 and fp32 are, wanted or not") {
  for (const Case& c : cases(true)) {
    const auto exact = reference::linear_backward(c.x, c.w, c.dy, c.rows, c.outputs, c.inputs);
    for (const Wanted wanted : {Wanted{true, true, false}, Wanted{true, false, true},
                                Wanted{false, true, false}, Wanted{}}) {
      for (const bool with_cublaslt : {true, false}) {
        c.describe();
        CAPTURE(wanted.dx, wanted.dw, wanted.accumulate_dx, with_cublaslt);
        const auto gpu = new_backend(with_cublaslt);
        const Gradients actual = linear_backward(*gpu, c, wanted);
        const Doubles dx = wanted.accumulate_dx ? sum_of(c.dx, exact.dx) : exact.dx;
        CHECK(actual.dx == as_floats(wanted.dx ? dx : c.dx));
        CHECK(actual.dw == as_floats(wanted.dw ? sum_of(c.dw, exact.dw) : c.dw));
      }
    }
  }
}

TEST_CASE("linear_backward on the GPU is within the rounding of its operands to bf16") {
  for (const bool with_cublaslt : {true, false}) {
    for (const Case& c : cases(false)) {
      c.describe();
      CAPTURE(with_cublaslt);
      const auto exact = reference::linear_backward(c.x, c.w, c.dy, c.rows, c.outputs, c.inputs);
      const auto size = reference::linear_backward(magnitudes(c.x), magnitudes(c.w),
                                                   magnitudes(c.dy), c.rows, c.outputs, c.inputs);
      const auto gpu = new_backend(with_cublaslt);
      const Gradients actual = linear_backward(*gpu, c, {true, true, false});
      CHECK(worst_ratio(actual.dx, exact.dx,
                        scaled_magnitudes(product_bound(2, c.outputs), size.dx)) <= 1);
      CHECK(worst_ratio(actual.dw, sum_of(exact.dw, c.dw),
                        sum_of(scaled_magnitudes(product_bound(2, c.rows), size.dw),
                               scaled_magnitudes(kSumRounding, c.dw))) <= 1);
    }
  }
}

TEST_CASE("linear on the GPU of bf16 is that of the same numbers in f32, rounded once") {
  for (Case c : cases(false)) {
    c.narrow();
    c.describe();
    const auto gpu = new_backend(true);
    const Floats expected = linear(*gpu, c);
    for (const Types& types : all_types()) {
      CAPTURE(types.x, types.y);
      CHECK(linear(*gpu, c, types) == test::rounded_to(types.y, expected));
    }
  }
}

TEST_CASE("linear_backward on the GPU of bf16 is that of the same numbers in f32, rounded") {
  for (Case c : cases(false)) {
    c.narrow();
    const auto size = reference::linear_backward(magnitudes(c.x), magnitudes(c.w), magnitudes(c.dy),
                                                 c.rows, c.outputs, c.inputs);
    for (const Wanted wanted : {Wanted{true, true, false}, Wanted{true, false, true}}) {
      for (const bool with_cublaslt : {true, false}) {
        const auto gpu = new_backend(with_cublaslt);
        const Gradients expected = linear_backward(*gpu, c, wanted);
        for (const Types& types : all_types()) {
          c.describe();
          CAPTURE(wanted.accumulate_dx, with_cublaslt, types.x, types.y, types.dx);
          const Gradients actual = linear_backward(*gpu, c, wanted, types);
          if (types.dx == DType::f32) {
            CHECK(actual.dx == expected.dx);
          } else {
            // cuBLASLt has an algorithm for each type of result, each with its own order of a sum, and
            // may round the product and what it is added to one after the other. (Of our own kernels
            // the tests of the kernels know the very bits.)
            const double bound = product_bound(2, c.outputs);
            CHECK(worst_ratio(actual.dx, Doubles(expected.dx.begin(), expected.dx.end()),
                              sum_of(scaled_magnitudes(bound, size.dx),
                                     scaled_magnitudes(bound, c.dx))) <= 1);
          }
          CHECK(actual.dw == expected.dw);
        }
      }
    }
  }
}

TEST_CASE("rows in bf16 that need no padding are operands as they are", "[emulator]") {
  const Case padded(5, 12, 20, true), whole(5, 16, 24, true);
  const auto gpu = new_backend(true);
  const auto launches = [&](const auto& operation) {
    const std::uint64_t before = emulator::statistics().launches;
    operation();
    return emulator::statistics().launches - before;
  };
  const Types bf16{DType::bf16, DType::bf16, DType::bf16};
  // x and w are converted, and a product; or w alone. Of dy and w likewise, with cuBLASLt's product.
  CHECK(launches([&] { linear(*gpu, padded, bf16); }) == 3);
  CHECK(launches([&] { linear(*gpu, whole, bf16); }) == 2);
  CHECK(launches([&] { linear_backward(*gpu, padded, {true, false, false}, bf16); }) == 2);
  CHECK(launches([&] { linear_backward(*gpu, whole, {true, false, false}, bf16); }) == 1);
}

TEST_CASE("gradients come the same way in every execution, and from cuBLASLt where it is",
          "[emulator]") {
  const Case c(37, 12, 20, true);
  const auto exact = reference::linear_backward(c.x, c.w, c.dy, c.rows, c.outputs, c.inputs);
  for (const bool with_cublaslt : {true, false}) {
    test::in_each_execution([&] {
      emulator::config().device.has_cublaslt = with_cublaslt;
      const auto gpu = make_cuda_backend();
      const std::uint64_t before = emulator::statistics().launches;
      const Gradients actual = linear_backward(*gpu, c, {true, true, true});
      CHECK(actual.dx == as_floats(sum_of(c.dx, exact.dx)));
      CHECK(actual.dw == as_floats(sum_of(c.dw, exact.dw)));
      // Three operands are converted; two products.
      CHECK(emulator::statistics().launches - before == (with_cublaslt ? 3 : 5));
    });
  }
}

TEST_CASE("linear products on the GPU of nothing do nothing, and of no inputs give zeros") {
  const auto gpu = new_backend(true);
  const Case none(0, 4, 8, false);
  CHECK(linear(*gpu, none).empty());
  CHECK(linear_backward(*gpu, none, {true, true, false}).dw == as_floats(none.dw));
  const Case empty(2, 3, 0, false);
  CHECK(linear(*gpu, empty) == Floats(6, 0));
  const Case no_outputs(2, 0, 3, false);
  CHECK(linear_backward(*gpu, no_outputs, {true, true, false}).dx == Floats(6, 0));
  CHECK(linear_backward(*gpu, no_outputs, {true, true, true}).dx == as_floats(no_outputs.dx));
}

TEST_CASE("linear on the GPU refuses wrong shapes and types") {
  const auto gpu = new_backend(true);
  const auto f32 = [&](std::int64_t rows, std::int64_t columns) {
    return gpu->make_tensor(DType::f32, {rows, columns});
  };
  Tensor x = f32(2, 8), w = f32(4, 8), y = f32(2, 4), turned = f32(4, 2);
  Tensor halves = gpu->make_tensor(DType::bf16, {4, 8});
  CHECK_THROWS_AS(gpu->linear(x, w, turned), ContractError);
  CHECK_THROWS_AS(gpu->linear(x, turned, y), ContractError);
  CHECK_THROWS_AS(gpu->linear(x, halves, y), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, w, turned, x, false, w), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, w, y, y, false, w), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, w, y, x, false, y), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, halves, y, x, false, w), ContractError);
  const std::int64_t too_many = 65'535 * 64 + 1;
  Tensor long_x = f32(too_many, 1), single = f32(1, 1), long_y = f32(too_many, 1);
  CHECK_THROWS_WITH(gpu->linear(long_x, single, long_y),
                    Catch::Matchers::Contains("expected at most 4194240"));
  CHECK(emulator::last_failure() == "");
}

}  // namespace
}  // namespace bitnet
