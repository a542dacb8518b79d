// SPDX-License-Identifier: MIT
// CUDA's device side under an ordinary C++ compiler: cuda/gpu.h includes it where nvcc does not
// compile. Only for files with kernels; everything a kernel may use is here or in tensor_core.h,
// and a form that is not here does not compile. The names are CUDA's own.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/cuda_emulator/simt.h"
#include "tests/cuda_emulator/tensor_core.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__                                                     \
  static_assert(false,                                                 \
                "shared memory is declared by BITNET_SHARED_ARRAY or " \
                "BITNET_DYNAMIC_SHARED");
#define __launch_bounds__(...)

#define BITNET_DEVICE inline
#define BITNET_SHARED_ARRAY(type, name, count)                                   \
  auto& name = *static_cast<type(*)[count]>(::bitnet::emulator::shared_variable( \
      ::bitnet::emulator::key_of([] {}), sizeof(type) * (count),                 \
      ::bitnet::emulator::Site::current()))
#define BITNET_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(::bitnet::emulator::dynamic_shared_memory())

// The scheduler writes them when it changes to another CUDA thread.
extern "C" {
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
}
inline constexpr int warpSize = 32;

namespace bitnet::emulator {

// An address for each lambda, and so for each place and each instance of a template around it.
template <typename Place>
const void* key_of(Place) {
  static const char key = 0;
  return &key;
}

template <typename T>
struct ShuffleLane {
  T value;
  int source;
};

template <typename T>
T shuffle(unsigned mask, T value, int source, const char* kind, Site site) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8);
  if ((mask >> source & 1U) == 0) {
    kernel_failure(site, "%s: lane %d reads lane %d, which is not in the mask %08x", kind,
                   lane_index(), source, mask);
  }
  ShuffleLane<T> lane{value, source};
  warp_collective(
      mask, kind, &lane,
      [](void* const* lanes, unsigned members) {
        T values[32];
        for (int l = 0; l < 32; ++l) {
          if ((members >> l & 1U) != 0) values[l] = static_cast<ShuffleLane<T>*>(lanes[l])->value;
        }
        for (int l = 0; l < 32; ++l) {
          if ((members >> l & 1U) == 0) continue;
          auto* to = static_cast<ShuffleLane<T>*>(lanes[l]);
          to->value = values[to->source];
        }
      },
      site);
  return lane.value;
}

// Folds the values of the lanes; all get the result.
template <typename T, typename Fold>
T reduce_lanes(unsigned mask, T value, const char* kind, Fold, Site site) {
  warp_collective(
      mask, kind, &value,
      [](void* const* lanes, unsigned members) {
        bool first = true;
        T result{};
        for (int l = 0; l < 32; ++l) {
          if ((members >> l & 1U) == 0) continue;
          const T v = *static_cast<T*>(lanes[l]);
          result = first ? v : Fold{}(result, v);
          first = false;
        }
        for (int l = 0; l < 32; ++l) {
          if ((members >> l & 1U) != 0) *static_cast<T*>(lanes[l]) = result;
        }
      },
      site);
  return value;
}

}  // namespace bitnet::emulator

// --- barriers ---

inline void __syncthreads(bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  bitnet::emulator::block_barrier(site);
}
inline void __syncwarp(unsigned mask = 0xffffffffU,
                       bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  bitnet::emulator::warp_collective(mask, "__syncwarp", nullptr, nullptr, site);
}

// --- warp collectives; `width` (a power of two) cuts the warp into parts ---

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  const int part = bitnet::emulator::lane_index() & -width;
  return bitnet::emulator::shuffle(mask, value, part + (source & (width - 1)), "__shfl_sync", site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  const int lane = bitnet::emulator::lane_index(), source = lane ^ lane_mask;
  const bool in_reach = source < (lane & -width) + width;
  return bitnet::emulator::shuffle(mask, value, in_reach ? source : lane, "__shfl_xor_sync", site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  const int lane = bitnet::emulator::lane_index(), source = lane + static_cast<int>(delta);
  const bool in_reach = source < (lane & -width) + width;
  return bitnet::emulator::shuffle(mask, value, in_reach ? source : lane, "__shfl_down_sync", site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  const int lane = bitnet::emulator::lane_index(), source = lane - static_cast<int>(delta);
  const bool in_reach = source >= (lane & -width);
  return bitnet::emulator::shuffle(mask, value, in_reach ? source : lane, "__shfl_up_sync", site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  const unsigned vote = predicate != 0 ? 1U << bitnet::emulator::lane_index() : 0U;
  return bitnet::emulator::reduce_lanes(
      mask, vote, "__ballot_sync", [](unsigned a, unsigned b) { return a | b; }, site);
}
inline int __any_sync(unsigned mask, int predicate,
                      bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  return bitnet::emulator::reduce_lanes(
      mask, predicate != 0 ? 1 : 0, "__any_sync", [](int a, int b) { return a | b; }, site);
}
inline int __all_sync(unsigned mask, int predicate,
                      bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  return bitnet::emulator::reduce_lanes(
      mask, predicate != 0 ? 1 : 0, "__all_sync", [](int a, int b) { return a & b; }, site);
}
// Sums wrap around, as on the device.
inline int __reduce_add_sync(unsigned mask, int value,
                             bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  return static_cast<int>(bitnet::emulator::reduce_lanes(
      mask, static_cast<unsigned>(value), "__reduce_add_sync",
      [](unsigned a, unsigned b) { return a + b; }, site));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value,
                                  bitnet::emulator::Site site = bitnet::emulator::Site::current()) {
  return bitnet::emulator::reduce_lanes(
      mask, value, "__reduce_max_sync", [](unsigned a, unsigned b) { return std::max(a, b); },
      site);
}

// --- atomics, relaxed as on the device ---

template <typename T>
requires std::is_integral_v<T> T atomicAdd(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline float atomicAdd(float* address, float value) {
  auto* bits = reinterpret_cast<std::uint32_t*>(address);
  std::uint32_t old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(
      bits, &old, std::bit_cast<std::uint32_t>(std::bit_cast<float>(old) + value), true,
      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return std::bit_cast<float>(old);
}
template <typename T>
requires std::is_integral_v<T> T atomicMax(T* address, std::type_identity_t<T> value) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
  }
  return old;
}

// --- numbers ---

using std::max;
using std::min;

// Four signed bytes times four signed bytes, added to c. Mixed signs must not pass unnoticed.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) {
    c += static_cast<std::int8_t>(a >> 8 * i) * static_cast<std::int8_t>(b >> 8 * i);
  }
  return c;
}
template <typename A, typename B, typename C>
int __dp4a(A, B, C) = delete;

// Nearest, ties to even; NaN gives 0, and what does not fit the nearest that does.
inline int __float2int_rn(float x) {
  if (std::isnan(x)) return 0;
  if (x >= 2147483648.0f) return INT_MAX;
  if (x <= -2147483648.0f) return INT_MIN;
  return static_cast<int>(std::nearbyintf(x));
}
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
// Nibble i of the selector picks byte 0..7 of (b, a) as byte i. Sign replication is not offered.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned pick = selector >> 4 * i & 7U;
    result |= static_cast<unsigned>(bytes >> 8 * pick & 0xFFU) << 8 * i;
  }
  return result;
}

namespace bitnet::gpu {

// The arguments are copied at the launch, as on the device.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...));
  std::tuple<Parameters...> copies(Parameters(std::forward<Arguments>(arguments))...);
  return emulator::enqueue_kernel(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                                  stream, emulator::Overlap::never,
                                  [kernel, copies] { std::apply(kernel, copies); });
}
template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapping(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                               std::size_t shared_bytes, cudaStream_t stream,
                               Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...));
  std::tuple<Parameters...> copies(Parameters(std::forward<Arguments>(arguments))...);
  return emulator::enqueue_kernel(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                                  stream, emulator::Overlap::allowed,
                                  [kernel, copies] { std::apply(kernel, copies); });
}
inline void wait_for_predecessors() { emulator::wait_for_predecessors(); }
inline void prefetch_to_l2(const void* from, std::size_t bytes,
                           emulator::Site site = emulator::Site::current()) {
  emulator::prefetch_to_l2(from, bytes, site);
}

inline float exp2_approximate(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}

// Vector accesses of a thread; a misaligned one faults on the device.
template <typename Vector>
Vector load_vector(const void* from, emulator::Site site = emulator::Site::current()) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  if (reinterpret_cast<std::uintptr_t>(from) % sizeof(Vector) != 0) {
    emulator::kernel_failure(site, "a misaligned load of %zu bytes", sizeof(Vector));
  }
  return *static_cast<const Vector*>(from);
}
template <typename Vector>
void store_vector(void* to, Vector value, emulator::Site site = emulator::Site::current()) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  if (reinterpret_cast<std::uintptr_t>(to) % sizeof(Vector) != 0) {
    emulator::kernel_failure(site, "a misaligned store of %zu bytes", sizeof(Vector));
  }
  *static_cast<Vector*>(to) = value;
}

}  // namespace bitnet::gpu
