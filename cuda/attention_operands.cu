// SPDX-License-Identifier: MIT
// One thread per 8 elements of a padded row, in the order of the source.
#include "cuda/attention_operands.h"

#include <limits>

#include "cuda/attention_elements.cuh"
#include "cuda/attention_launch.h"
#include "cuda/gpu.h"
#include "cuda/position.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kInfinityLow = 0x7f80U, kInfinityHigh = 0x7f800000U;
constexpr unsigned kNanPair = 0x7fff7fffU;

BITNET_DEVICE uint4 rounded(const float (&x)[kElements], float scale) {
  return make_uint4(
      gpu::pack_bf16x2(x[0] * scale, x[1] * scale), gpu::pack_bf16x2(x[2] * scale, x[3] * scale),
      gpu::pack_bf16x2(x[4] * scale, x[5] * scale), gpu::pack_bf16x2(x[6] * scale, x[7] * scale));
}
BITNET_DEVICE bool finite_pair(unsigned pair) {
  return (pair & kInfinityLow) != kInfinityLow && (pair & kInfinityHigh) != kInfinityHigh;
}
BITNET_DEVICE bool finite(uint4 x) {
  return finite_pair(x.x) && finite_pair(x.y) && finite_pair(x.z) && finite_pair(x.w);
}

// The thread's eight elements of x [batch, tokens, heads, E] and of the operand [batch, heads,
// room, P].
struct Place {
  int batch, token, head, first;
  BITNET_DEVICE Place(unsigned thread, int tokens, int heads, int width) {
    const unsigned chunks = static_cast<unsigned>(width) / kElements;
    first = static_cast<int>(thread % chunks) * kElements;
    unsigned row = thread / chunks;
    head = static_cast<int>(row % static_cast<unsigned>(heads));
    row /= static_cast<unsigned>(heads);
    token = static_cast<int>(row % static_cast<unsigned>(tokens));
    batch = static_cast<int>(row / static_cast<unsigned>(tokens));
  }
  BITNET_DEVICE std::size_t source(int tokens, int heads, int head_dim) const {
    return ((static_cast<std::size_t>(batch) * tokens + token) * heads + head) * head_dim + first;
  }
  BITNET_DEVICE std::size_t operand(int room, int heads, int width) const {
    return ((static_cast<std::size_t>(batch) * heads + head) * room + token) * width + first;
  }
};

__global__ void __launch_bounds__(kThreads) query_operand_kernel(QueryOperand op, int width) {
  const Place at(blockIdx.x * kThreads + threadIdx.x, op.tokens, op.heads, width);
  if (at.batch >= op.batch) return;
  uint4 y = make_uint4(0, 0, 0, 0);
  if (at.first < op.head_dim) {
    float x[kElements];
    load_elements(op.x, at.source(op.tokens, op.heads, op.head_dim), x);
    y = rounded(x, op.scale);
  }
  gpu::store_vector(op.y + at.operand(op.tokens, op.heads, width), y);
}

template <typename Input>
__global__ void __launch_bounds__(kThreads)
    key_value_operands_kernel(KeyValueOperands<Input> op, int width) {
  const Place at(blockIdx.x * kThreads + threadIdx.x, op.room, op.kv_heads, width);
  if (at.batch >= op.batch || at.token >= position_of(op.first_position) + op.queries) return;
  uint4 k = make_uint4(0, 0, 0, 0), v = k;
  if (at.first < op.head_dim) {
    const std::size_t source = at.source(op.keys, op.kv_heads, op.head_dim);
    float x[kElements];
    load_elements(op.k + source, x);
    k = rounded(x, 1.0f);
    load_elements(op.v + source, x);
    v = rounded(x, 1.0f);
    if (!finite(v)) {
      k = make_uint4(kNanPair, kNanPair, kNanPair, kNanPair);
      v = make_uint4(0, 0, 0, 0);
    }
  }
  const std::size_t to = at.operand(op.room, op.kv_heads, width);
  gpu::store_vector(op.operand_k + to, k);
  gpu::store_vector(op.operand_v + to, v);
}

// Blocks for one thread per eight elements, 0 if there are too many threads to count.
unsigned blocks_for(int batch, int tokens, int heads, int width) {
  const double threads = static_cast<double>(batch) * tokens * heads * (width / kElements);
  if (!(threads >= 1 && threads < std::numeric_limits<int>::max())) return 0;
  return (static_cast<unsigned>(threads) + kThreads - 1) / kThreads;
}

}  // namespace

cudaError_t query_operand(const QueryOperand& op, cudaStream_t stream) {
  const int width = attention_operand_width(op.head_dim);
  const unsigned blocks = blocks_for(op.batch, op.tokens, op.heads, width);
  if (blocks == 0 || !is_attention_head(op.head_dim)) return cudaErrorInvalidValue;
  return gpu::launch(query_operand_kernel, dim3(blocks), dim3(kThreads), 0, stream, op, width);
}

template <typename Input>
cudaError_t key_value_operands(const KeyValueOperands<Input>& op, cudaStream_t stream) {
  const int width = attention_operand_width(op.head_dim);
  const unsigned blocks = blocks_for(op.batch, op.room, op.kv_heads, width);
  if (blocks == 0 || !is_attention_head(op.head_dim)) return cudaErrorInvalidValue;
  return gpu::launch(key_value_operands_kernel<Input>, dim3(blocks), dim3(kThreads), 0, stream, op,
                     width);
}

template cudaError_t key_value_operands(const KeyValueOperands<float>&, cudaStream_t);
template cudaError_t key_value_operands(const KeyValueOperands<__half>&, cudaStream_t);
template cudaError_t key_value_operands(const KeyValueOperands<__nv_bfloat16>&, cudaStream_t);

}  // namespace bitnet::cuda
