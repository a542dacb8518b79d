// SPDX-License-Identifier: MIT
// Micro-benchmarks of the backend's operations at the shapes that matter: one token (decode), 512
// (prefill) and 2048 (an update of configs/bench_train.json). Rates are operations or bytes a
// second, to be set against `bitnet bench limits`. An operation runs over and over on the same
// tensors: weights that fit into a cache, as those of one row of a small model do, are read from
// there, quicker than memory gives them. BITNET_BENCH_THREADS (default 1) and
// BITNET_CPU_ISA choose what runs them.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/parallel.h"
#include "core/base/random.h"
#include "core/cpu/cpu_backend.h"

namespace bitnet {
namespace {

Backend& backend() {
  static const std::unique_ptr<Backend> instance = [] {
    const char* threads = std::getenv("BITNET_BENCH_THREADS");
    return make_cpu_backend(threads == nullptr ? 1 : std::atoi(threads));
  }();
  return *instance;
}

Tensor random_floats(Shape shape, float deviation = 1.0f) {
  const RandomStream stream{1, RandomPurpose::test, 0};
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  // A table of normal numbers, over and over: making all of them would take longer than measuring.
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = i < 4096 ? deviation * static_cast<float>(stream.normal(i)) : values[i % 4093];
  Tensor tensor = backend().make_tensor(DType::f32, shape);
  backend().copy_from_host(values.data(), tensor);
  return tensor;
}

void set_operations(benchmark::State& state, double operations) {
  state.counters["operations"] =
      benchmark::Counter(operations, benchmark::Counter::kIsIterationInvariantRate);
}

void set_bytes(benchmark::State& state, double bytes) {
  state.counters["bytes"] =
      benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
}

// --- one quantised projection [N, K] of `rows` tokens ---

struct Projection {
  Projection(std::int64_t rows, std::int64_t n, std::int64_t k)
      : w(random_floats({n, k}, 0.02f)),
        packed(backend().make_tensor(DType::u8, {n / 4, k})),
        weight_scale(backend().make_tensor(DType::f32, {1})),
        codes(backend().make_tensor(DType::i8, {rows, k})),
        act_scale(backend().make_tensor(DType::f32, {rows})),
        y(backend().make_tensor(DType::f32, {rows, n})) {
    backend().quantize_weights({}, w, packed, weight_scale, {});
    backend().quantize_activations(random_floats({rows, k}), codes, act_scale);
  }
  Tensor w, packed, weight_scale, codes, act_scale, y;
};

void bit_linear(benchmark::State& state) {
  const std::int64_t rows = state.range(0), n = state.range(1), k = state.range(2);
  Projection p(rows, n, k);
  for (auto _ : state)
    backend().bit_linear(p.codes, p.act_scale, {p.packed, p.weight_scale, p.y, {}});
  set_operations(state, 2.0 * static_cast<double>(rows * n * k));
  set_bytes(state, static_cast<double>(p.packed.bytes()));
}

void bit_linear_backward(benchmark::State& state, GradientPrecision precision) {
  const std::int64_t rows = state.range(0), n = state.range(1), k = state.range(2);
  Projection p(rows, n, k);
  const Tensor dy = random_floats({rows, n});
  Tensor dx = backend().make_tensor(DType::f32, {rows, k});
  Tensor dw = backend().make_tensor(DType::f32, {n, k});
  for (auto _ : state)
    backend().bit_linear_backward(p.codes, p.act_scale, {p.packed, p.weight_scale, dy, dw},
                                  precision, dx);
  set_operations(state, 4.0 * static_cast<double>(rows * n * k));
}

void quantize_weights(benchmark::State& state) {
  Projection p(1, state.range(0), state.range(1));
  for (auto _ : state) backend().quantize_weights({}, p.w, p.packed, p.weight_scale, {});
  set_bytes(state, static_cast<double>(p.w.bytes() + p.packed.bytes()));
}

// --- rows of `width` floats ---

void quantize_activations(benchmark::State& state) {
  const std::int64_t rows = state.range(0), width = state.range(1);
  const Tensor x = random_floats({rows, width});
  Tensor codes = backend().make_tensor(DType::i8, {rows, width}),
         act_scale = backend().make_tensor(DType::f32, {rows});
  for (auto _ : state) backend().quantize_activations(x, codes, act_scale);
  set_bytes(state, static_cast<double>(x.bytes() + codes.bytes()));
}

void norm_quantize(benchmark::State& state) {
  const std::int64_t rows = state.range(0), width = state.range(1);
  const Tensor x = random_floats({rows, width}), gain = random_floats({width});
  Tensor codes = backend().make_tensor(DType::i8, {rows, width}),
         act_scale = backend().make_tensor(DType::f32, {rows}),
         stats = backend().make_tensor(DType::f32, {rows, 2});
  for (auto _ : state)
    backend().norm_quantize({NormKind::rms, gain, 1e-5f}, x, codes, act_scale, stats);
  set_bytes(state, static_cast<double>(x.bytes() + codes.bytes()));
}

void norm(benchmark::State& state) {
  const std::int64_t rows = state.range(0), width = state.range(1);
  const Tensor x = random_floats({rows, width}), gain = random_floats({width});
  Tensor y = backend().make_tensor(DType::f32, {rows, width}),
         stats = backend().make_tensor(DType::f32, {rows, 2});
  for (auto _ : state) backend().norm(NormKind::rms, x, gain, 1e-5f, y, stats);
  set_bytes(state, static_cast<double>(x.bytes() + y.bytes()));
}

void gated_activation_quantize(benchmark::State& state) {
  const std::int64_t rows = state.range(0), width = state.range(1);
  const Tensor gate = random_floats({rows, width}), up = random_floats({rows, width}),
               gain = random_floats({width});
  Tensor codes = backend().make_tensor(DType::i8, {rows, width}),
         act_scale = backend().make_tensor(DType::f32, {rows}),
         stats = backend().make_tensor(DType::f32, {rows, 2});
  for (auto _ : state)
    backend().gated_activation_quantize(Activation::relu2, gate, up, {NormKind::rms, gain, 1e-5f},
                                        codes, act_scale, stats);
  set_bytes(state, static_cast<double>(2 * gate.bytes() + codes.bytes()));
}

// --- attention: batch, queries, keys, query heads, key/value heads, head_dim ---

struct AttentionCase {
  explicit AttentionCase(const benchmark::State& state)
      : shape{.batch = state.range(0),
              .queries = state.range(1),
              .keys = state.range(2),
              .heads = state.range(3),
              .kv_heads = state.range(4),
              .head_dim = state.range(5),
              .first_position = state.range(2) - state.range(1),
              // One sequence's keys and values lie in caches.
              .capacity =
                  state.range(0) == 1 ? tile_count(state.range(2), kCacheTile) * kCacheTile : 0},
        q(random_floats({shape.batch, shape.queries, shape.heads, shape.head_dim})),
        k(random_floats({shape.batch, room(), shape.kv_heads, shape.head_dim})),
        v(random_floats({shape.batch, room(), shape.kv_heads, shape.head_dim})),
        out(backend().make_tensor(DType::f32, q.shape())),
        logsumexp(backend().make_tensor(DType::f32, {shape.batch, shape.heads, shape.queries})) {}

  std::int64_t room() const { return shape.capacity > 0 ? shape.capacity : shape.keys; }
  // The keys or values that there are, of one sequence where there is room for more.
  ConstTensorView seen(const Tensor& x) const {
    if (room() == shape.keys) return x;
    const ConstTensorView rows = x.view().reshaped({room(), shape.kv_heads, shape.head_dim});
    return rows.rows(0, shape.keys).reshaped({1, shape.keys, shape.kv_heads, shape.head_dim});
  }
  // Of one product under the causal mask.
  double operations() const {
    const double keys = static_cast<double>(2 * shape.first_position + shape.queries + 1) / 2;
    return 2.0 * static_cast<double>(q.elements()) * keys;
  }

  AttentionShape shape;
  Tensor q, k, v, out, logsumexp;
};

void attention(benchmark::State& state) {
  AttentionCase a(state);
  for (auto _ : state)
    backend().attention(a.shape, a.q, a.seen(a.k), a.seen(a.v), a.out, a.logsumexp);
  set_operations(state, 2 * a.operations());
  set_bytes(state, static_cast<double>(a.k.bytes() + a.v.bytes()));
}

void attention_backward(benchmark::State& state) {
  AttentionCase a(state);
  const Tensor dout = random_floats(a.q.shape());
  Tensor dq = backend().make_tensor(DType::f32, a.q.shape()),
         dk = backend().make_tensor(DType::f32, a.k.shape()),
         dv = backend().make_tensor(DType::f32, a.v.shape());
  backend().attention(a.shape, a.q, a.k, a.v, a.out, a.logsumexp);
  for (auto _ : state)
    backend().attention_backward(a.shape, a.q, a.k, a.v, a.out, a.logsumexp, dout, dq, dk, dv);
  set_operations(state, 5 * a.operations());
}

// Real time: the CPU time that the library divides by otherwise is that of one thread.
// FFN shapes of bench_7m, bench_100m and 2b4t.
BENCHMARK(bit_linear)
    ->UseRealTime()
    ->ArgNames({"rows", "N", "K"})
    ->ArgsProduct({{1, 512}, {768}, {256}})
    ->ArgsProduct({{1, 512}, {2048}, {768}})
    ->ArgsProduct({{1, 512}, {6912}, {2560}})
    ->Args({2048, 1024, 256});
BENCHMARK_CAPTURE(bit_linear_backward, int8, GradientPrecision::int8)
    ->UseRealTime()
    ->ArgNames({"rows", "N", "K"})
    ->Args({2048, 1024, 256})
    ->Args({2048, 2048, 768});
BENCHMARK_CAPTURE(bit_linear_backward, fp32, GradientPrecision::fp32)
    ->UseRealTime()
    ->ArgNames({"rows", "N", "K"})
    ->Args({2048, 1024, 256})
    ->Args({2048, 2048, 768});
BENCHMARK(quantize_weights)
    ->UseRealTime()
    ->ArgNames({"N", "K"})
    ->Args({1024, 256})
    ->Args({2048, 768});
BENCHMARK(quantize_activations)
    ->UseRealTime()
    ->ArgNames({"rows", "K"})
    ->ArgsProduct({{1, 512, 2048}, {256, 2560}});
BENCHMARK(norm)->UseRealTime()->ArgNames({"rows", "K"})->ArgsProduct({{1, 512, 2048}, {256, 2560}});
BENCHMARK(norm_quantize)
    ->UseRealTime()
    ->ArgNames({"rows", "K"})
    ->ArgsProduct({{1, 512, 2048}, {256, 2560}});
BENCHMARK(gated_activation_quantize)
    ->UseRealTime()
    ->ArgNames({"rows", "K"})
    ->ArgsProduct({{1, 512, 2048}, {768, 6912}});
BENCHMARK(attention)
    ->UseRealTime()
    ->ArgNames({"B", "T", "S", "H", "G", "E"})
    ->Args({1, 1, 129, 4, 4, 64})      // decode, bench_7m
    ->Args({1, 512, 512, 4, 4, 64})    // prefill
    ->Args({1, 1, 129, 20, 5, 128})    // decode, 2b4t
    ->Args({1, 512, 512, 20, 5, 128})  // prefill
    ->Args({8, 256, 256, 4, 4, 64});   // train
BENCHMARK(attention_backward)
    ->UseRealTime()
    ->ArgNames({"B", "T", "S", "H", "G", "E"})
    ->Args({8, 256, 256, 4, 4, 64});

}  // namespace
}  // namespace bitnet

BENCHMARK_MAIN();
