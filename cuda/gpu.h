// SPDX-License-Identifier: MIT
// The vocabulary of the kernels, and the only CUDA header that a .cu file includes: CUDA's own
// names plus what needs a macro or inline PTX (bitnet::gpu). Under nvcc it is the device; under
// another compiler an emulator, found on the include path, gives the same names a meaning on the
// CPU, so that tests execute these very kernels without a GPU. Rules for kernels:
//   - launch() instead of <<<>>>; shared memory only by BITNET_SHARED_ARRAY and
//     BITNET_DYNAMIC_SHARED.
//   - Only _sync warp primitives, with explicit masks; the lanes of a warp return together.
//   - No return before a barrier of the block; all threads meet the same barriers.
//   - 8 and 16-byte accesses through load_vector / store_vector, which keep their width.
//   - A kernel that launch_overlapping() starts calls wait_for_predecessors() in every thread, and
//     touches device memory before it by prefetch_to_l2() alone.
//   - No contraction by the compiler (nvcc --fmad=false): fmaf where it is meant.
// Each PTX wrapper has a twin in the emulator and a test of its layout.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#ifndef __CUDACC__
#include <cuda_emulator/device.h>
#else

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "The kernels need compute capability 8.0 (Ampere) or later."
#endif

#define BITNET_DEVICE __device__ __forceinline__
#define BITNET_SHARED_ARRAY(type, name, count) __shared__ __align__(16) type name[count]
#define BITNET_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(128) unsigned char bitnet_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(bitnet_dynamic_shared)

namespace bitnet::gpu {

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...));
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...);
}

// The same, but the blocks may come while the kernel before them in the stream still runs, if there
// is room, and if that one was launched so too and has waited (programmatic dependent launch): the
// launch, their beginning and prefetches are over when it is their turn. For kernels of few blocks:
// many would find their places unevenly. Where the device has no such launches (before 9.0) it is
// launch().
template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapping(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                               std::size_t shared_bytes, cudaStream_t stream,
                               Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...));
  int device = 0, major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...);
}

// Returns when everything before this kernel in the stream is done and visible. Then the next kernel's
// blocks may come, and wait for this one. (Not before: blocks of several waiting kernels take the
// room of those that work.)
BITNET_DEVICE void wait_for_predecessors() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// A hint to bring bytes of device memory into the second-level cache; address and number are
// multiples of 16. Also of what a running kernel may still write: nothing is read. One thread's call
// is enough for all the bytes.
BITNET_DEVICE void prefetch_to_l2([[maybe_unused]] const void* from,
                                  [[maybe_unused]] std::size_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(from)),
               "r"(static_cast<std::uint32_t>(bytes))
               : "memory");
#endif
}

// 4, 8 or 16 bytes at an address that is a multiple of that; Vector is uint32_t, uint2, uint4, …
template <typename Vector>
BITNET_DEVICE Vector load_vector(const void* from) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  return *static_cast<const Vector*>(from);
}
template <typename Vector>
BITNET_DEVICE void store_vector(void* to, Vector value) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  *static_cast<Vector*>(to) = value;
}

BITNET_DEVICE std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

// cp.async of 16 bytes from global to shared memory, past L1; zeros if not `valid`, and then
// `global` is not read. Visible to this thread after wait_copies, to others after a barrier too.
BITNET_DEVICE void copy_async16(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}
// Closes a group of copies; wait_copies<n> returns when all but the n youngest groups are done.
BITNET_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroupsInFlight>
BITNET_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsInFlight) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane 8 m + r gives the address of row
// r (16 bytes) of matrix m; register m gets elements (lane / 4, 2 (lane % 4) + {0, 1}) of matrix m,
// or, with trans, of its transpose.
BITNET_DEVICE void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}
BITNET_DEVICE void ldmatrix_x4_trans(std::uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b on tensor cores: a [16, 32] and b [32, 8] signed bytes, d int32, exact.
BITNET_DEVICE void mma_m16n8k32_s8(int (&d)[4], const std::uint32_t (&a)[4],
                                   const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d += a b: a [16, 16] and b [16, 8] bf16, d fp32.
BITNET_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                     const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 2^x within 2^-22 of it; exactly 1 for 0, and 0 for -infinity and wherever 2^x < 2^-126.
BITNET_DEVICE float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace bitnet::gpu

#endif  // __CUDACC__

// --- the same on both sides ---

namespace bitnet::gpu {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffU;

// Lets a kernel have more than 48 KB of shared memory; before its first launch.
template <typename... Parameters>
cudaError_t allow_shared_bytes(void (*kernel)(Parameters...), std::size_t bytes) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

// bf16 is the upper half of an fp32: widening is exact, narrowing rounds to nearest even.
BITNET_DEVICE float2 unpack_bf16x2(std::uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000U));
}
BITNET_DEVICE std::uint32_t pack_bf16x2(float low, float high) {
  const std::uint32_t l = __bfloat16_as_ushort(__float2bfloat16_rn(low));
  const std::uint32_t h = __bfloat16_as_ushort(__float2bfloat16_rn(high));
  return h << 16 | l;
}
// fp16: widening is exact, narrowing rounds to nearest even, beyond the range to infinity.
BITNET_DEVICE float2 unpack_f16x2(std::uint32_t pair) {
  return make_float2(__half2float(__ushort_as_half(static_cast<unsigned short>(pair))),
                     __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16))));
}
BITNET_DEVICE std::uint32_t pack_f16x2(float low, float high) {
  const std::uint32_t l = __half_as_ushort(__float2half_rn(low));
  const std::uint32_t h = __half_as_ushort(__float2half_rn(high));
  return h << 16 | l;
}

}  // namespace bitnet::gpu
