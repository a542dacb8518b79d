// SPDX-License-Identifier: MIT
// Attention of the CUDA backend: recorded, of bf16 tensors, and what it refuses. tests/backend
// compares it with the reference.
#include <vector>

#include "cuda/cuda_backend.h"
#include "tests/cuda/act_tensors.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::act_floats;
using test::act_to_device;
using test::floats_of;
using test::random_numbers;
using test::to_device;

AttentionShape shape_of(std::int64_t batch, std::int64_t queries, std::int64_t kv_heads,
                        std::int64_t head_dim, std::int64_t first = 0) {
  return {.batch = batch,
          .queries = queries,
          .keys = first + queries,
          .heads = 4,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .first_position = first};
}

Shape query_shape(const AttentionShape& s) { return {s.batch, s.queries, s.heads, s.head_dim}; }
Shape kv_shape(const AttentionShape& s) { return {s.batch, s.keys, s.kv_heads, s.head_dim}; }

TEST_CASE("recorded attention sees the keys of each repetition's position") {
  const std::int64_t queries = GENERATE(1, 17), capacity = 96;  // in fp32, and on tensor cores
  const std::int64_t positions[] = {0, 3, 62, 63, 64, capacity - queries};
  emulator::reset();
  const auto gpu = make_cuda_backend();
  Backend& be = *gpu;
  const AttentionShape all = shape_of(1, capacity, 2, 16);
  const Tensor q = to_device(be, query_shape(all), random_numbers(1, query_shape(all).elements())),
               k = to_device(be, kv_shape(all), random_numbers(2, kv_shape(all).elements())),
               v = to_device(be, kv_shape(all), random_numbers(3, kv_shape(all).elements()));
  const auto seen = [&](const Tensor& cache, const AttentionShape& s) {
    return cache.view().reshaped({capacity, 2, 16}).rows(0, s.keys).reshaped(kv_shape(s));
  };
  AttentionShape s = shape_of(1, queries, 2, 16);
  const ConstTensorView input =
      q.view().reshaped({capacity, 4, 16}).rows(0, queries).reshaped(query_shape(s));
  Tensor recorded = be.make_tensor(DType::f32, query_shape(s)),
         plain = be.make_tensor(DType::f32, query_shape(s));
  std::unique_ptr<RecordedOperations> record;
  for (const std::int64_t position : positions) {
    s = shape_of(1, queries, 2, 16, position);
    be.attention(s, input, seen(k, s), seen(v, s), plain, {});
    s.capacity = capacity;
    be.repeat(record, position,
              [&] { be.attention(s, input, seen(k, s), seen(v, s), recorded, {}); });
    CHECK(floats_of(be, recorded) == floats_of(be, plain));
  }
}

using Floats = std::vector<float>;

Floats random_floats(std::uint32_t seed, const Shape& shape) {
  const auto x = random_numbers(seed, shape.elements());
  return test::rounded_to_bf16(Floats(x.begin(), x.end()));
}

struct Results {
  Floats out, logsumexp, dq, dk, dv;
};

// Of the same numbers, which bf16 holds. What the backward reads of the forward is given in bf16 too.
Results results(Backend& be, const AttentionShape& s, DType dtype) {
  const auto on_device = [&](std::uint32_t seed, const Shape& shape) {
    return act_to_device(be, dtype, shape, random_floats(seed, shape));
  };
  const Tensor q = on_device(1, query_shape(s)), k = on_device(2, kv_shape(s)),
               v = on_device(3, kv_shape(s)), dout = on_device(4, query_shape(s));
  Tensor out = be.make_tensor(dtype, query_shape(s)), dq = be.make_tensor(dtype, query_shape(s)),
         dk = be.make_tensor(dtype, kv_shape(s)), dv = be.make_tensor(dtype, kv_shape(s)),
         logsumexp = be.make_tensor(DType::f32, {s.batch, s.heads, s.queries});
  be.attention(s, q, k, v, out, logsumexp);
  const Floats computed = act_floats(be, out);
  const Tensor read = act_to_device(be, dtype, query_shape(s), test::rounded_to_bf16(computed));
  be.attention_backward(s, q, k, v, read, logsumexp, dout, dq, dk, dv);
  return {computed, floats_of(be, logsumexp), act_floats(be, dq), act_floats(be, dk),
          act_floats(be, dv)};
}

TEST_CASE("attention of bf16 tensors is that of their f32 copies, rounded once") {
  emulator::reset();
  const auto gpu = make_cuda_backend();
  for (const AttentionShape& s : {shape_of(2, 17, 2, 16), shape_of(1, 66, 1, 80)}) {
    const Results wide = results(*gpu, s, DType::f32), narrow = results(*gpu, s, DType::bf16);
    CHECK(narrow.logsumexp == wide.logsumexp);
    CHECK(narrow.out == test::rounded_to_bf16(wide.out));
    CHECK(narrow.dq == test::rounded_to_bf16(wide.dq));
    CHECK(narrow.dk == test::rounded_to_bf16(wide.dk));
    CHECK(narrow.dv == test::rounded_to_bf16(wide.dv));
  }
}

TEST_CASE("a row of bf16 attention has the same bits in short sequences and in long ones") {
  emulator::reset();
  const auto gpu = make_cuda_backend();
  Backend& be = *gpu;
  const AttentionShape all = shape_of(1, 40, 2, 16);
  const Floats q = random_floats(1, query_shape(all)), k = random_floats(2, kv_shape(all)),
               v = random_floats(3, kv_shape(all));
  const auto first_rows = [&](std::int64_t tokens) {
    const AttentionShape s = shape_of(1, tokens, 2, 16);
    const auto on_device = [&](const Shape& shape, const Floats& x) {
      return act_to_device(be, DType::bf16, shape, {x.begin(), x.begin() + shape.elements()});
    };
    const Tensor tq = on_device(query_shape(s), q), tk = on_device(kv_shape(s), k),
                 tv = on_device(kv_shape(s), v);
    Tensor out = be.make_tensor(DType::bf16, query_shape(s));
    be.attention(s, tq, tk, tv, out, {});
    return act_floats(be, out);
  };
  const Floats whole = first_rows(40);
  for (const std::int64_t tokens : {1, 2, 16, 17}) {
    const Floats some = first_rows(tokens);
    CHECK(some == Floats(whole.begin(), whole.begin() + std::ptrdiff_t(some.size())));
  }
}

TEST_CASE("attention on the GPU refuses what does not fit together") {
  emulator::reset();
  const auto gpu = make_cuda_backend();
  Backend& be = *gpu;
  AttentionShape s = shape_of(1, 4, 2, 16);
  const Tensor q = be.make_tensor(DType::f32, query_shape(s)),
               k = be.make_tensor(DType::f32, kv_shape(s)),
               half = be.make_tensor(DType::f16, kv_shape(s));
  Tensor out = be.make_tensor(DType::f32, query_shape(s)),
         dk = be.make_tensor(DType::f32, kv_shape(s)),
         logsumexp = be.make_tensor(DType::f32, {1, 4, 4});
  CHECK_NOTHROW(be.attention(s, q, k, k, out, logsumexp));
  CHECK_THROWS_AS(be.attention(s, q, half, k, out, {}), ContractError);
  CHECK_THROWS_AS(be.attention(s, q, q, k, out, {}), ContractError);
  CHECK_THROWS_AS(be.attention(s, q, k, k, out, out), ContractError);
  CHECK_THROWS_AS(be.attention_backward(s, q, half, half, out, logsumexp, q, out, dk, dk),
                  ContractError);
  // All bf16, or none.
  const Tensor bf16_q = be.make_tensor(DType::bf16, query_shape(s)),
               bf16_k = be.make_tensor(DType::bf16, kv_shape(s));
  Tensor bf16_out = be.make_tensor(DType::bf16, query_shape(s)),
         bf16_dk = be.make_tensor(DType::bf16, kv_shape(s));
  CHECK_THROWS_AS(be.attention(s, bf16_q, bf16_k, bf16_k, out, {}), ContractError);
  CHECK_THROWS_AS(be.attention(s, bf16_q, half, half, bf16_out, {}), ContractError);
  CHECK_THROWS_AS(be.attention(s, bf16_q, bf16_k, k, bf16_out, {}), ContractError);
  CHECK_THROWS_AS(be.attention(s, q, bf16_k, bf16_k, out, {}), ContractError);
  CHECK_THROWS_AS(be.attention(s, q, k, k, bf16_out, {}), ContractError);
  const auto backward = [&](const Tensor& o, const Tensor& d, Tensor& dq, Tensor& dkv) {
    be.attention_backward(s, bf16_q, bf16_k, bf16_k, o, logsumexp, d, dq, dkv, dkv);
  };
  CHECK_NOTHROW(backward(bf16_out, bf16_q, bf16_out, bf16_dk));
  CHECK_THROWS_AS(backward(out, bf16_q, bf16_out, bf16_dk), ContractError);
  CHECK_THROWS_AS(backward(bf16_out, q, bf16_out, bf16_dk), ContractError);
  CHECK_THROWS_AS(backward(bf16_out, bf16_q, out, bf16_dk), ContractError);
  CHECK_THROWS_AS(backward(bf16_out, bf16_q, bf16_out, dk), ContractError);
  const auto refused = [&](auto change) {
    AttentionShape wrong = s;
    change(wrong);
    CHECK_THROWS_AS(be.attention(wrong, q, k, k, out, {}), ContractError);
  };
  refused([](AttentionShape& w) { w.kv_heads = 3; });
  refused([](AttentionShape& w) { w.head_dim = 24; });
  refused([](AttentionShape& w) { w.first_position = 1; });
  refused([](AttentionShape& w) { w.capacity = 3; });
}

}  // namespace
}  // namespace bitnet
