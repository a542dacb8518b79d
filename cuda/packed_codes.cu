// SPDX-License-Identifier: MIT
// One thread for four packed bytes, that is for four neighbouring elements in each quarter. A group
// never crosses a quarter, so the group of element k + q n is that of k plus q times the groups of a
// quarter; with one scale for all, both are 0.
#include "cuda/packed_codes.h"

#include "cuda/gpu.h"
#include "cuda/reduce.cuh"
#include "cuda/tensor_list.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kQuarters = 4;
constexpr int kVector = 4;                       // elements of a quarter that a thread has
constexpr std::uint32_t kLowBits = 0x55555555U;  // the low bit of each code of a word

// What a weight is multiplied with (the reciprocal of its scale), or its mean.
template <WeightCode kCode>
BITNET_DEVICE float operand_of(float constant) {
  return kCode == WeightCode::ternary ? 1.0f / constant : constant;
}
// code + 1.
template <WeightCode kCode>
BITNET_DEVICE std::uint32_t code_bits(float w, float operand) {
  if constexpr (kCode == WeightCode::binary) return w - operand > 0.0f ? 2U : 0U;
  const float scaled = w * operand;
  return scaled > 0.5f ? 2U : scaled < -0.5f ? 0U : 1U;
}

using List = TensorList<PackWeights>;

// One thread for each matrix.
__global__ void __launch_bounds__(List::kMost) clear_flips_kernel(List list) {
  const int matrix = static_cast<int>(threadIdx.x);
  if (matrix < list.count && list.tensors[matrix].flips != nullptr) *list.tensors[matrix].flips = 0;
}

// A constant for all is read by one thread: a read by every warp of the grid would make the memory
// that holds it the limit. The weights are on their way meanwhile.
template <WeightCode kCode>
__global__ void __launch_bounds__(kThreads) pack_weights_kernel(List list) {
  BITNET_SHARED_ARRAY(float, shared_operand, 1);
  const int matrix = list.tensor_of(blockIdx.x);
  const PackWeights& op = list.tensors[matrix];
  const auto words = static_cast<std::uint32_t>(op.elements / (kQuarters * kVector)),
             group_size = static_cast<std::uint32_t>(op.group_size),
             groups_of_quarter = words * kVector / group_size;  // 0 if all share a constant
  const std::uint32_t word = (blockIdx.x - list.first_part[matrix]) * kThreads + threadIdx.x;
  const bool there = word < words;
  std::uint8_t* const to = op.packed + static_cast<std::size_t>(word) * kVector;
  float4 four[kQuarters];
  std::uint32_t before = 0;
  if (there) {
    const float* w = op.w + static_cast<std::size_t>(word) * kVector;
#pragma unroll
    for (std::uint32_t q = 0; q < kQuarters; ++q) {
      four[q] = gpu::load_vector<float4>(w + static_cast<std::size_t>(q) * words * kVector);
    }
    if (op.flips != nullptr) before = gpu::load_vector<std::uint32_t>(to);
  }
  float operands[kQuarters];
  if (groups_of_quarter == 0) {
    if (threadIdx.x == 0) shared_operand[0] = operand_of<kCode>(*op.constants);
    __syncthreads();
#pragma unroll
    for (float& operand : operands) operand = shared_operand[0];
  } else if (there) {
    const std::uint32_t group = word * kVector / group_size;
#pragma unroll
    for (std::uint32_t q = 0; q < kQuarters; ++q) {
      operands[q] = operand_of<kCode>(op.constants[group + q * groups_of_quarter]);
    }
  }
  int flips = 0;
  if (there) {
    std::uint32_t packed = 0;
#pragma unroll
    for (std::uint32_t q = 0; q < kQuarters; ++q) {
      const float operand = operands[q];
      packed |=
          (code_bits<kCode>(four[q].x, operand) | code_bits<kCode>(four[q].y, operand) << 8 |
           code_bits<kCode>(four[q].z, operand) << 16 | code_bits<kCode>(four[q].w, operand) << 24)
          << (2 * q);
    }
    gpu::store_vector(to, packed);
    const std::uint32_t change = before ^ packed;
    flips = __popc((change | change >> 1) & kLowBits);
  }
  if (op.flips == nullptr) return;  // the whole block
  flips = block_sum<kThreads>(flips);
  if (threadIdx.x == 0 && flips != 0) atomicAdd(op.flips, flips);
}

__global__ void __launch_bounds__(kThreads)
    unpack_weights_kernel(UnpackWeights op, std::uint32_t words, std::uint32_t group_size,
                          std::uint32_t groups_of_quarter) {
  const std::uint32_t word = blockIdx.x * kThreads + threadIdx.x;
  if (word >= words) return;
  const std::uint32_t group = word * kVector / group_size;
  const auto packed =
      gpu::load_vector<std::uint32_t>(op.packed + static_cast<std::size_t>(word) * kVector);
  float* w = op.w + static_cast<std::size_t>(word) * kVector;
#pragma unroll
  for (std::uint32_t q = 0; q < kQuarters; ++q) {
    const float scale = op.scales[group + q * groups_of_quarter];
    const auto weight = [&](int byte) {
      const auto bits = static_cast<int>(packed >> (8 * byte + 2 * static_cast<int>(q)) & 3U);
      return scale * static_cast<float>(bits - 1);
    };
    gpu::store_vector(w + static_cast<std::size_t>(q) * words * kVector,
                      make_float4(weight(0), weight(1), weight(2), weight(3)));
  }
}

struct ThreadCounts {
  int zero = 0, plus = 0, invalid = 0;
  BITNET_DEVICE void add(std::uint32_t word) {  // bits that are no codes are 0
    const std::uint32_t low = word & kLowBits, high = word >> 1 & kLowBits;
    zero += __popc(low & ~high);
    plus += __popc(high & ~low);
    invalid += __popc(low & high);
  }
};

constexpr int kCountedBytes = 16;  // that a thread reads at once
constexpr std::int64_t kVectorsOfThread = 4;

// `vectors` of 16 bytes, then what is left byte by byte.
__global__ void __launch_bounds__(kThreads)
    count_packed_kernel(const std::uint8_t* packed, std::int64_t bytes, std::int64_t vectors,
                        PackedCounts* counts) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  ThreadCounts of_thread;
#pragma unroll 4
  for (std::int64_t i = thread; i < vectors; i += stride) {
    const uint4 words = gpu::load_vector<uint4>(packed + i * kCountedBytes);
    of_thread.add(words.x);
    of_thread.add(words.y);
    of_thread.add(words.z);
    of_thread.add(words.w);
  }
  for (std::int64_t i = vectors * kCountedBytes + thread; i < bytes; i += stride) {
    of_thread.add(packed[i]);
  }
  const int zero = block_sum<kThreads>(of_thread.zero);
  const int plus = block_sum<kThreads>(of_thread.plus);
  const int invalid = block_sum<kThreads>(of_thread.invalid);
  if (threadIdx.x != 0) return;
  atomicAdd(&counts->zero, static_cast<unsigned long long>(zero));
  atomicAdd(&counts->plus, static_cast<unsigned long long>(plus));
  if (invalid != 0) atomicAdd(&counts->invalid, static_cast<unsigned long long>(invalid));
}

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

// Of threads that have a word each.
unsigned blocks_of(std::int64_t elements) { return blocks_for(elements / (kQuarters * kVector)); }

// Whether the kernels above can take the sizes.
bool fits(std::int64_t elements, std::int64_t group_size) {
  constexpr std::int64_t kOfThread = kQuarters * kVector;
  if (elements < kOfThread || elements % kOfThread != 0 || elements >> 32 != 0) return false;
  return group_size == elements || (group_size >= kVector && group_size % kVector == 0 &&
                                    elements / kQuarters % group_size == 0);
}

}  // namespace

cudaError_t pack_weights(WeightCode code, std::span<const PackWeights> matrices,
                         cudaStream_t stream) {
  for (const PackWeights& op : matrices) {
    if (!fits(op.elements, op.group_size)) return cudaErrorInvalidValue;
  }
  const auto kernel = code == WeightCode::ternary ? pack_weights_kernel<WeightCode::ternary>
                                                  : pack_weights_kernel<WeightCode::binary>;
  return for_each_list(
      matrices, [](const PackWeights& op) { return blocks_of(op.elements); },
      [&](const List& list, std::int64_t) {
        const cudaError_t error = gpu::launch(
            clear_flips_kernel, dim3(1), dim3(static_cast<unsigned>(list.count)), 0, stream, list);
        if (error != cudaSuccess) return error;
        return gpu::launch(kernel, dim3(list.first_part[list.count]), dim3(kThreads), 0, stream,
                           list);
      });
}

cudaError_t unpack_weights(const UnpackWeights& op, cudaStream_t stream) {
  if (!fits(op.elements, op.group_size)) return cudaErrorInvalidValue;
  const std::int64_t quarter = op.elements / kQuarters;
  return gpu::launch(unpack_weights_kernel, dim3(blocks_of(op.elements)), dim3(kThreads), 0, stream,
                     op, static_cast<std::uint32_t>(quarter / kVector),
                     static_cast<std::uint32_t>(op.group_size),
                     static_cast<std::uint32_t>(quarter / op.group_size));
}

cudaError_t count_packed(const std::uint8_t* packed, std::int64_t bytes, PackedCounts* counts,
                         cudaStream_t stream) {
  if (bytes < 0) return cudaErrorInvalidValue;
  const cudaError_t error = cudaMemsetAsync(counts, 0, sizeof(PackedCounts), stream);
  if (error != cudaSuccess || bytes == 0) return error;
  const bool aligned = reinterpret_cast<std::uintptr_t>(packed) % kCountedBytes == 0;
  const std::int64_t vectors = aligned ? bytes / kCountedBytes : 0;
  // Few threads, because all blocks add to the same place.
  const std::int64_t threads = bytes / (kCountedBytes * kVectorsOfThread) + 1;
  return gpu::launch(count_packed_kernel, dim3(blocks_for(threads)), dim3(kThreads), 0, stream,
                     packed, bytes, vectors, counts);
}

}  // namespace bitnet::cuda
