// SPDX-License-Identifier: MIT
// Causal grouped-query attention. A few queries take the fp32 kernels that cut the keys into
// stretches (cuda/attention_decode.h), more of them, and all of bf16 tensors, the tensor cores with
// operands rounded to bf16 (cuda/attention_forward.h, with the bound of what that costs). A row has
// the same bits whatever stands beside it within each of the two, but not across them.
#include <cmath>
#include <limits>

#include "core/backend/attention_checks.h"
#include "cuda/attention_backward.h"
#include "cuda/attention_decode.h"
#include "cuda/attention_forward.h"
#include "cuda/attention_operands.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/rope.h"

namespace bitnet::cuda {
namespace {

// With more queries the tensor cores read the keys fewer times.
constexpr std::int64_t kFewQueries = 16;
constexpr double kLog2E = 1.4426950408889634;

void check_dtype(const char* name, ConstTensorView x, DType dtype) {
  BITNET_CHECK(x.dtype() == dtype, "attention's {} holds {}, expected {}", name,
               to_string(x.dtype()), to_string(dtype));
}

// Tokens of a sequence that k and v have room for.
std::int64_t room_of(const AttentionShape& s) { return s.capacity == 0 ? s.keys : s.capacity; }

void check_room_and_dtypes(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                           ConstTensorView v, ConstTensorView out) {
  BITNET_CHECK(s.keys <= room_of(s) && room_of(s) <= std::numeric_limits<int>::max(),
               "attention has {} keys and room for {}", s.keys, room_of(s));
  BITNET_CHECK(q.dtype() == DType::f32 || q.dtype() == DType::bf16,
               "attention's q holds {}, expected f32 or bf16", to_string(q.dtype()));
  const bool half = q.dtype() == DType::f32 && k.dtype() == DType::f16;
  check_dtype("k", k, half ? DType::f16 : q.dtype());
  check_dtype("v", v, k.dtype());
  check_dtype("out", out, q.dtype());
}

double score_scale(const AttentionShape& s) {
  return 1.0 / std::sqrt(static_cast<double>(s.head_dim));
}
// Scores in units of log 2.
float score_scale_log2(const AttentionShape& s) {
  return static_cast<float>(score_scale(s) * kLog2E);
}

struct KeyValueViews {
  ConstTensorView k, v;
};

template <typename Input>
void few_queries(const AttentionShape& s, ConstTensorView q, const KeyValueViews& kv,
                 TensorView out, float* logsumexp, Position first_position, Workspace& workspace,
                 cudaStream_t stream) {
  const int stretches = attention_decode_stretches(as_int(room_of(s)));
  const std::int64_t partials = s.batch * s.queries * s.heads * stretches;
  Workspace::Frame frame(workspace);
  check(attention_decode<Input>({.q = data<float>(q),
                                 .k = data<Input>(kv.k),
                                 .v = data<Input>(kv.v),
                                 .out = data<float>(out),
                                 .logsumexp = logsumexp,
                                 .partial_out = frame.get<float>(partials * s.head_dim),
                                 .partial_sums = frame.get<float2>(partials),
                                 .first_position = first_position,
                                 .score_scale = score_scale_log2(s),
                                 .batch = as_int(s.batch),
                                 .queries = as_int(s.queries),
                                 .keys = as_int(s.keys),
                                 .stretches = stretches,
                                 .heads = as_int(s.heads),
                                 .kv_heads = as_int(s.kv_heads),
                                 .head_dim = as_int(s.head_dim)},
                                stream),
        "attention of a few queries");
}

// Operands in the workspace of an operation.
struct Operands {
  __nv_bfloat16 *q, *k, *v;
};

__nv_bfloat16* query_rows(const AttentionShape& s, ConstTensorView x, float scale,
                          Workspace::Frame& frame, cudaStream_t stream) {
  const std::int64_t width = attention_operand_width(as_int(s.head_dim));
  auto* const y = frame.get<__nv_bfloat16>(s.batch * s.heads * s.queries * width);
  check(query_operand({.x = reals(x),
                       .scale = scale,
                       .y = y,
                       .batch = as_int(s.batch),
                       .tokens = as_int(s.queries),
                       .heads = as_int(s.heads),
                       .head_dim = as_int(s.head_dim)},
                      stream),
        "attention's queries in bf16");
  return y;
}

template <typename Input>
Operands operands(const AttentionShape& s, ConstTensorView q, const KeyValueViews& kv,
                  Position first_position, Workspace::Frame& frame, cudaStream_t stream) {
  const std::int64_t width = attention_operand_width(as_int(s.head_dim));
  const std::int64_t kv_size = s.batch * s.kv_heads * room_of(s) * width;
  const Operands o{query_rows(s, q, score_scale_log2(s), frame, stream),
                   frame.get<__nv_bfloat16>(kv_size), frame.get<__nv_bfloat16>(kv_size)};
  check(key_value_operands<Input>({.k = data<Input>(kv.k),
                                   .v = data<Input>(kv.v),
                                   .operand_k = o.k,
                                   .operand_v = o.v,
                                   .first_position = first_position,
                                   .queries = as_int(s.queries),
                                   .batch = as_int(s.batch),
                                   .keys = as_int(s.keys),
                                   .room = as_int(room_of(s)),
                                   .kv_heads = as_int(s.kv_heads),
                                   .head_dim = as_int(s.head_dim)},
                                  stream),
        "attention's keys and values in bf16");
  return o;
}

template <typename Input>
void many_queries(const AttentionShape& s, ConstTensorView q, const KeyValueViews& kv,
                  TensorView out, float* logsumexp, Position first_position, Workspace& workspace,
                  cudaStream_t stream) {
  Workspace::Frame frame(workspace);
  const Operands o = operands<Input>(s, q, kv, first_position, frame, stream);
  check(attention_forward({.q = o.q,
                           .k = o.k,
                           .v = o.v,
                           .out = reals(out),
                           .logsumexp = logsumexp,
                           .first_position = first_position,
                           .batch = as_int(s.batch),
                           .queries = as_int(s.queries),
                           .room = as_int(room_of(s)),
                           .heads = as_int(s.heads),
                           .kv_heads = as_int(s.kv_heads),
                           .head_dim = as_int(s.head_dim)},
                          stream),
        "attention");
}

template <typename Cache>
void turn_and_append(TensorView q, TensorView k, ConstTensorView v, ConstTensorView table,
                     Position first, TensorView keys, TensorView values, cudaStream_t stream) {
  check(rope_append<Cache>({.q = data<float>(q),
                            .k = data<float>(k),
                            .v = data<float>(v),
                            .keys = data<Cache>(keys),
                            .values = data<Cache>(values),
                            .table = data<float>(table),
                            .first = first,
                            .tokens = as_int(q.dim(1)),
                            .heads = as_int(q.dim(2)),
                            .kv_heads = as_int(k.dim(2)),
                            .head_dim = as_int(q.dim(3))},
                           stream),
        "rope_append");
}

}  // namespace

void CudaBackend::rope_append(TensorView q, TensorView k, ConstTensorView v, ConstTensorView table,
                              std::int64_t first_position, TensorView keys, TensorView values) {
  check_rope_append(q, k, v, table, first_position, keys, values);
  if (q.elements() == 0) return;
  (keys.dtype() == DType::f16
       ? turn_and_append<__half>
       : turn_and_append<float>)(q, k, v, table, position(first_position), keys, values, stream_);
}

void CudaBackend::attention(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                            ConstTensorView v, TensorView out, TensorView logsumexp) {
  check_attention(s, kMaxAttentionHeadDim, q, k, v, out, logsumexp);
  check_room_and_dtypes(s, q, k, v, out);
  if (s.batch == 0 || s.queries == 0) return;
  const Position first_position = position(s.first_position);
  // A later position's `keys` would move the second sequence.
  BITNET_CHECK(first_position.base == nullptr || s.batch == 1,
               "attention of {} sequences in recorded operations, expected 1", s.batch);
  auto* run = many_queries<__nv_bfloat16>;
  if (q.dtype() == DType::f32) {
    const bool half = k.dtype() == DType::f16;
    run = s.queries <= kFewQueries ? (half ? few_queries<__half> : few_queries<float>)
                                   : (half ? many_queries<__half> : many_queries<float>);
  }
  run(s, q, {k, v}, out, data<float>(logsumexp), first_position, workspace_, stream_);
}

void CudaBackend::attention_backward(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                                     ConstTensorView v, ConstTensorView out,
                                     ConstTensorView logsumexp, ConstTensorView dout, TensorView dq,
                                     TensorView dk, TensorView dv) {
  check_attention_backward(s, kMaxAttentionHeadDim, q, k, v, out, logsumexp, dout, dq, dk, dv);
  check_room_and_dtypes(s, q, k, v, out);
  const DType dtype = q.dtype();
  check_dtype("k", k, dtype);
  check_dtype("dout", dout, dtype);
  check_dtype("dq", dq, dtype);
  check_dtype("dk", dk, dtype);
  check_dtype("dv", dv, dtype);
  if (s.batch == 0 || s.queries == 0) return;
  AttentionShape whole = s;
  whole.capacity = 0;
  Workspace::Frame frame(workspace_);
  const Operands o =
      (dtype == DType::bf16 ? operands<__nv_bfloat16>
                            : operands<float>)(whole, q, {k, v}, Position{}, frame, stream_);
  const __nv_bfloat16* const operand_dout = query_rows(whole, dout, 1.0f, frame, stream_);
  const int room = attention_row_room(as_int(s.queries));
  auto* const rows = frame.get<float2>(s.batch * s.heads * room);
  check(attention_rows({.out = reals(out),
                        .dout = reals(dout),
                        .logsumexp = data<float>(logsumexp),
                        .rows = rows,
                        .batch = as_int(s.batch),
                        .tokens = as_int(s.queries),
                        .room = room,
                        .heads = as_int(s.heads),
                        .head_dim = as_int(s.head_dim)},
                       stream_),
        "attention_backward's rows");
  check(cuda::attention_backward({.q = o.q,
                                  .dout = operand_dout,
                                  .k = o.k,
                                  .v = o.v,
                                  .rows = rows,
                                  .dq = reals(dq),
                                  .dk = reals(dk),
                                  .dv = reals(dv),
                                  .score_scale = static_cast<float>(score_scale(s)),
                                  .batch = as_int(s.batch),
                                  .tokens = as_int(s.queries),
                                  .room = room,
                                  .heads = as_int(s.heads),
                                  .kv_heads = as_int(s.kv_heads),
                                  .head_dim = as_int(s.head_dim)},
                                 stream_),
        "attention_backward");
}

}  // namespace bitnet::cuda
