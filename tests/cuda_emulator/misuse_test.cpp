// SPDX-License-Identifier: MIT
// Planted bugs: each must be found in at least one execution, and the same kernel without the bug
// in none. A child process runs them, since a sanitizer's answer is the end of the process.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "cuda/gpu.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/cuda_emulator/sanitizers.h"
#include "tests/support/catch.h"

#ifdef BITNET_THREAD_SANITIZER
namespace {
int reported_races = 0;
}
extern "C" void __tsan_on_report(void*) { ++reported_races; }
#endif

namespace bitnet::test {
namespace {

constexpr bool kSanitized = emulator::kAddressSanitizer || emulator::kThreadSanitizer;

bool races_were_reported() {
#ifdef BITNET_THREAD_SANITIZER
  return reported_races > 0;
#else
  return false;
#endif
}

struct Outcome {
  bool found = false;
  std::string text;  // what the process said
};

// Runs `body` in a child; `found` unless the child returns from it and ends as it should.
Outcome in_child(const std::function<void()>& body) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    body();
    _exit(races_were_reported() ? 1 : 0);
  }
  close(ends[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
    outcome.text.append(buffer, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.found = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  return outcome;
}

// All executions of `run`, which returns whether the results were right.
Outcome execute(const std::function<bool()>& run) {
  return in_child([&] {
    for_each_execution([&](const std::string& execution) {
      const bool right = run();
      if (right && emulator::last_failure().empty() && !races_were_reported()) return true;
      std::fprintf(stderr, "%s: %s\n", execution.c_str(), right ? "" : "wrong results");
      std::fprintf(stderr, "%s\n", emulator::last_failure().c_str());
      _exit(1);
    });
  });
}

// Runs a kernel on an array of `size` zeros and the results' count; expected results, or none to
// compare.
using Kernel = void (*)(int*);
std::function<bool()> run_of(Kernel kernel, int threads, std::vector<int> expected,
                             std::size_t size) {
  return [=] {
    int* data = nullptr;
    std::vector<int> values(size, 0);
    const std::size_t bytes = size * sizeof(int);
    cudaMalloc(reinterpret_cast<void**>(&data), bytes);
    cudaMemcpy(data, values.data(), bytes, cudaMemcpyHostToDevice);
    bool right = gpu::launch(kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, nullptr,
                             data) == cudaSuccess;
    right = cudaMemcpy(values.data(), data, bytes, cudaMemcpyDeviceToHost) == cudaSuccess && right;
    cudaFree(data);
    return right && (expected.empty() || values == expected);
  };
}

std::vector<int> count_up(int n) {
  std::vector<int> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// The planted version is found with this text (in an ordinary build), the right one is not.
void check_pair(Kernel right, Kernel planted, int threads, const std::vector<int>& expected,
                const std::string& text) {
  const std::size_t size = expected.empty() ? static_cast<std::size_t>(threads) : expected.size();
  const Outcome good = execute(run_of(right, threads, expected, size));
  INFO(good.text);
  CHECK(!good.found);
  const Outcome bad = execute(run_of(planted, threads, expected, size));
  INFO(bad.text);
  CHECK(bad.found);
  if (!kSanitized) CHECK(bad.text.find(text) != std::string::npos);
}

// --- barriers ---

// Thread i gets the number of thread 127 - i, which another warp wrote.
template <bool kPlanted>
__global__ void exchange_kernel(int* out) {
  BITNET_SHARED_ARRAY(int, numbers, 128);
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  if constexpr (!kPlanted) __syncthreads();
  out[threadIdx.x] = 127 - numbers[127 - threadIdx.x];
}

TEST_CASE("A missing barrier is found") {
  check_pair(exchange_kernel<false>, exchange_kernel<true>, 128, count_up(128), "wrong results");
}

// Twice through the same shared array: the second write must wait for the first read.
template <bool kPlanted>
__global__ void two_rounds_kernel(int* out) {
  BITNET_SHARED_ARRAY(int, numbers, 128);
  int sum = 0;
  for (int round = 0; round < 2; ++round) {
    numbers[threadIdx.x] = round;
    __syncthreads();
    sum += numbers[127 - threadIdx.x];
    if constexpr (!kPlanted) __syncthreads();
  }
  out[threadIdx.x] = sum - 1 + static_cast<int>(threadIdx.x);
}

TEST_CASE("A missing barrier before shared memory is written again is found") {
  check_pair(two_rounds_kernel<false>, two_rounds_kernel<true>, 128, count_up(128),
             "wrong results");
}

// The same within a warp, by __syncwarp.
template <bool kPlanted>
__global__ void warp_exchange_kernel(int* out) {
  BITNET_SHARED_ARRAY(int, numbers, 32);
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  if constexpr (!kPlanted) __syncwarp(gpu::kWholeWarp);
  out[threadIdx.x] = 31 - numbers[31 - threadIdx.x];
}

TEST_CASE("A missing __syncwarp is found") {
  check_pair(warp_exchange_kernel<false>, warp_exchange_kernel<true>, 32, count_up(32),
             "wrong results");
}

template <bool kPlanted>
__global__ void two_places_kernel(int* out) {
  if (kPlanted && threadIdx.x < 64) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = static_cast<int>(threadIdx.x);
}

TEST_CASE("A divergent barrier is found") {
  check_pair(two_places_kernel<false>, two_places_kernel<true>, 128, count_up(128),
             "divergent barrier");
}

template <bool kPlanted>
__global__ void early_return_kernel(int* out) {
  if (kPlanted && threadIdx.x >= 96) return;
  __syncthreads();
  out[threadIdx.x] = static_cast<int>(threadIdx.x);
}

TEST_CASE("A barrier that some threads never reach is found") {
  const Outcome bad = execute(run_of(early_return_kernel<true>, 128, {}, 128));
  CHECK(bad.found);
  INFO(bad.text);
  const bool named = bad.text.find("threads of the block returned") != std::string::npos ||
                     bad.text.find("deadlock") != std::string::npos;
  CHECK(named);
  CHECK(!execute(run_of(early_return_kernel<false>, 128, count_up(128), 128)).found);
}

// --- cp.async ---

enum class CopyBug { none, no_wait, wait_too_short, no_barrier, never_waited };

// Two groups of copies; thread i stores what the copies of thread 63 - i brought.
template <CopyBug kBug>
__global__ void copies_kernel(int* data) {
  BITNET_SHARED_ARRAY(int, staged, 2 * 64 * 4);
  const int t = static_cast<int>(threadIdx.x);
  for (int group = 0; group < 2; ++group) {
    gpu::copy_async16(staged + (group * 64 + t) * 4, data + (group * 64 + t) * 4, true);
    gpu::commit_copies();
  }
  if constexpr (kBug == CopyBug::wait_too_short) {
    gpu::wait_copies<1>();
  } else if constexpr (kBug != CopyBug::no_wait && kBug != CopyBug::never_waited) {
    gpu::wait_copies<0>();
  }
  if constexpr (kBug != CopyBug::no_barrier) __syncthreads();
  int sum = 0;
  for (int i = 0; i < 4; ++i) sum += staged[(63 - t) * 4 + i] + staged[(127 - t) * 4 + i];
  if constexpr (kBug == CopyBug::no_wait || kBug == CopyBug::wait_too_short) gpu::wait_copies<0>();
  data[512 + t] = kBug == CopyBug::never_waited ? 8 : sum;
}

std::function<bool()> run_copies(Kernel kernel) {
  return [=] {
    std::vector<int> values(576, 1);
    int* data = nullptr;
    cudaMalloc(reinterpret_cast<void**>(&data), values.size() * sizeof(int));
    cudaMemcpy(data, values.data(), values.size() * sizeof(int), cudaMemcpyHostToDevice);
    gpu::launch(kernel, dim3(1), dim3(64), 0, nullptr, data);
    const cudaError_t error =
        cudaMemcpy(values.data(), data, values.size() * sizeof(int), cudaMemcpyDeviceToHost);
    cudaFree(data);
    return error == cudaSuccess &&
           std::vector(values.begin() + 512, values.end()) == std::vector<int>(64, 8);
  };
}

TEST_CASE("Missing and short waits for cp.async are found") {
  CHECK(!execute(run_copies(copies_kernel<CopyBug::none>)).found);
  CHECK(execute(run_copies(copies_kernel<CopyBug::no_wait>)).found);
  CHECK(execute(run_copies(copies_kernel<CopyBug::wait_too_short>)).found);
  CHECK(execute(run_copies(copies_kernel<CopyBug::no_barrier>)).found);
  const Outcome never = execute(run_copies(copies_kernel<CopyBug::never_waited>));
  CHECK(never.found);
  CHECK(never.text.find("nothing waited for") != std::string::npos);
}

// --- memory ---

template <bool kPlanted>
__global__ void uninitialised_kernel(int* out) {
  BITNET_SHARED_ARRAY(int, numbers, 64);
  if (!kPlanted || threadIdx.x != 17) numbers[threadIdx.x] = 0;
  __syncthreads();
  out[threadIdx.x] = numbers[threadIdx.x] + static_cast<int>(threadIdx.x);
}

TEST_CASE("Uninitialised shared memory is found") {
  check_pair(uninitialised_kernel<false>, uninitialised_kernel<true>, 64, count_up(64),
             "wrong results");
}

template <int kOffset>
__global__ void write_global_kernel(int* out) {
  out[static_cast<int>(threadIdx.x) + kOffset] = 1;
}
template <int kOffset>
__global__ void read_global_kernel(int* out) {
  const int value = out[static_cast<int>(threadIdx.x) + kOffset];
  out[threadIdx.x] = value == 0 ? static_cast<int>(threadIdx.x) : -1;
}

TEST_CASE("Overruns of device memory are found") {
  const std::vector<int> ones(32, 1);
  check_pair(write_global_kernel<0>, write_global_kernel<1>, 32, ones, "behind the end");
  check_pair(write_global_kernel<0>, write_global_kernel<-1>, 32, ones, "wrote right before");
  CHECK(execute(run_of(read_global_kernel<1>, 32, count_up(32), 32)).found);
  // Within the 16 bytes that alignment leaves behind 30 numbers.
  CHECK(execute(run_of(write_global_kernel<0>, 32, {}, 30)).found);
}

template <int kOffset>
__global__ void write_shared_kernel(int* out) {
  BITNET_SHARED_ARRAY(int, numbers, 33);
  BITNET_SHARED_ARRAY(int, others, 8);
  if (threadIdx.x < 8) others[threadIdx.x] = 0;
  numbers[threadIdx.x + 1 + kOffset] = 1;
  __syncwarp(gpu::kWholeWarp);
  out[threadIdx.x] = numbers[threadIdx.x + 1] + others[0];
}

TEST_CASE("Overruns of shared memory are found") {
  check_pair(write_shared_kernel<0>, write_shared_kernel<1>, 32, std::vector<int>(32, 1), "");
}

template <bool kPlanted>
__global__ void vector_kernel(int* out) {
  const int first = kPlanted ? 1 : 0;
  const uint4 v = gpu::load_vector<uint4>(out + first);
  gpu::store_vector(out + first, v);
}

TEST_CASE("A misaligned vector access is found") {
  check_pair(vector_kernel<false>, vector_kernel<true>, 1, std::vector<int>(8, 0),
             "misaligned load");
}

template <bool kPlanted>
__global__ void ldmatrix_misuse_kernel(int* out) {
  BITNET_SHARED_ARRAY(std::uint16_t, rows, 32 * 8);
  for (int i = 0; i < 8; ++i) rows[threadIdx.x * 8 + static_cast<unsigned>(i)] = 0;
  __syncwarp(gpu::kWholeWarp);
  std::uint32_t registers[4];
  gpu::ldmatrix_x4(registers, rows + threadIdx.x * 8 + (kPlanted ? 8 : 0));
  out[threadIdx.x] = static_cast<int>(registers[0] + threadIdx.x);
}

TEST_CASE("An ldmatrix outside shared memory is found") {
  check_pair(ldmatrix_misuse_kernel<false>, ldmatrix_misuse_kernel<true>, 32, count_up(32),
             "do not lie inside one shared variable");
}

template <bool kPlanted>
__global__ void large_shared_kernel(int* out) {
  BITNET_SHARED_ARRAY(int, first, 8 << 10);
  BITNET_SHARED_ARRAY(int, second, kPlanted ? (5 << 10) : (4 << 10));
  first[threadIdx.x] = second[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = first[threadIdx.x];
}

TEST_CASE("More than 48 KB of shared variables are found") {
  check_pair(large_shared_kernel<false>, large_shared_kernel<true>, 32, count_up(32),
             "shared memory exhausted");
}

__global__ void deep_kernel(int* out) {
  volatile char frame[300 << 10];
  for (std::size_t i = sizeof frame; i > 0; i -= 1024) frame[i - 1] = 1;
  out[0] = frame[1023];
}

TEST_CASE("A stack overflow of a CUDA thread is found") {
  const Outcome bad = execute(run_of(deep_kernel, 1, {}, 1));
  INFO(bad.text);
  CHECK(bad.found);
  if (!kSanitized) CHECK(bad.text.find("stack of a CUDA thread overflowed") != std::string::npos);
}

TEST_CASE("Memory that was freed is closed to kernels") {
  const Outcome bad = execute([] {
    int* data = nullptr;
    cudaMalloc(reinterpret_cast<void**>(&data), 128);
    cudaFree(data);
    gpu::launch(write_global_kernel<0>, dim3(1), dim3(32), 0, nullptr, data);
    return cudaDeviceSynchronize() == cudaSuccess;
  });
  CHECK(bad.found);
}

TEST_CASE("Host code that touches device memory ends the program") {
  const Outcome bad = in_child([] {
    int* data = nullptr;
    cudaMalloc(reinterpret_cast<void**>(&data), 400);
    const volatile int* from = data;
    std::printf("%d\n", from[3]);
  });
  CHECK(bad.found);
  INFO(bad.text);
  CHECK(bad.text.find("host code touched") != std::string::npos);
  CHECK(bad.text.find("byte 12 of an allocation of 400 bytes") != std::string::npos);
}

// --- masks ---

__global__ void good_mask_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned half = lane < 16 ? 0x0000ffffU : 0xffff0000U;  // two collectives at once
  out[lane] = __reduce_add_sync(half, 1) - 16 + lane;
}
__global__ void mask_without_caller_kernel(int* out) {
  out[threadIdx.x] = __shfl_sync(0x0000ffffU, 1, 0);
}
__global__ void mask_with_returned_kernel(int* out) {
  if (threadIdx.x < 5) return;
  out[threadIdx.x] = __shfl_sync(gpu::kWholeWarp, 1, 9);
}
__global__ void missing_lanes_kernel(int* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = __any_sync(gpu::kWholeWarp, 1);
  } else {
    __syncthreads();
  }
}
__global__ void two_collectives_kernel(int* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = __any_sync(gpu::kWholeWarp, 1);
  } else {
    __syncwarp(gpu::kWholeWarp);
  }
}
__global__ void overlapping_masks_kernel(int* out) {
  out[threadIdx.x] = __any_sync(threadIdx.x < 16 ? 0x0001ffffU : 0xffffffffU, 1);
}
__global__ void absent_source_kernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffU, 1, 20);
}

TEST_CASE("Wrong masks of warp collectives are found") {
  CHECK(!execute(run_of(good_mask_kernel, 32, count_up(32), 32)).found);
  const std::pair<Kernel, const char*> planted[] = {
      {mask_without_caller_kernel, "not in its own mask"},    {missing_lanes_kernel, "deadlock"},
      {two_collectives_kernel, "lanes of one warp disagree"}, {overlapping_masks_kernel, "overlap"},
      {absent_source_kernel, "which is not in the mask"},
  };
  for (const auto& [kernel, text] : planted) {
    const Outcome bad = execute(run_of(kernel, 32, {}, 32));
    INFO(text << ": " << bad.text);
    CHECK(bad.found);
    CHECK(bad.text.find(text) != std::string::npos);
  }
  CHECK(execute(run_of(mask_with_returned_kernel, 32, {}, 32)).found);
  // A block that is not a multiple of 32 has no whole last warp.
  CHECK(execute(run_of(good_mask_kernel, 40, {}, 64)).found);
}

// --- launches that may overlap their predecessors ---

__global__ void waiting_kernel(int* out) {
  gpu::prefetch_to_l2(out, 32);
  gpu::wait_for_predecessors();
  out[threadIdx.x] = 1;
}
__global__ void early_read_kernel(int* out) {
  const int before = out[threadIdx.x];
  gpu::wait_for_predecessors();
  out[threadIdx.x] = before;
}
__global__ void never_waiting_kernel(int*) {}
__global__ void partly_waiting_kernel(int* out) {
  if (threadIdx.x == 31) return;
  gpu::wait_for_predecessors();
  out[threadIdx.x] = 1;
}
__global__ void long_prefetch_kernel(int* out) {
  gpu::prefetch_to_l2(out, 144);
  gpu::wait_for_predecessors();
}
__global__ void odd_prefetch_kernel(int* out) {
  gpu::prefetch_to_l2(out + 1, 16);
  gpu::wait_for_predecessors();
}

Outcome execute_overlapping(Kernel kernel) {
  return execute([kernel] {
    int* data = nullptr;
    cudaMalloc(reinterpret_cast<void**>(&data), 128);
    cudaMemset(data, 0, 128);
    gpu::launch_overlapping(kernel, dim3(3), dim3(32), 0, nullptr, data);
    const bool right = cudaDeviceSynchronize() == cudaSuccess;
    cudaFree(data);
    return right;
  });
}

TEST_CASE("What a kernel does before its predecessors are done is found") {
  CHECK(!execute_overlapping(waiting_kernel).found);
  const std::pair<Kernel, const char*> planted[] = {
      {early_read_kernel, "before the kernel waited for its predecessors"},
      {never_waiting_kernel, "had not waited for its predecessors"},
      {partly_waiting_kernel, "had not waited for its predecessors"},
      {long_prefetch_kernel, "that are not device memory"},
      {odd_prefetch_kernel, "must be multiples of 16"},
  };
  for (const auto& [kernel, text] : planted) {
    const Outcome bad = execute_overlapping(kernel);
    INFO(text << ": " << bad.text);
    CHECK(bad.found);
    if (!kSanitized) CHECK(bad.text.find(text) != std::string::npos);
  }
}

// --- streams ---

// One stream doubles what the other one uploads.
__global__ void double_kernel(int* data) { data[threadIdx.x] *= 2; }

bool two_streams(bool with_event, bool with_wait) {
  cudaStream_t upload = nullptr, compute = nullptr;
  cudaStreamCreateWithFlags(&upload, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking);
  cudaEvent_t uploaded = nullptr;
  cudaEventCreateWithFlags(&uploaded, cudaEventDisableTiming);
  int *data = nullptr, *host = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&data), 128);
  cudaMallocHost(reinterpret_cast<void**>(&host), 128);
  std::iota(host, host + 32, 0);
  cudaMemcpyAsync(data, host, 128, cudaMemcpyHostToDevice, upload);
  cudaEventRecord(uploaded, upload);
  if (with_event) cudaStreamWaitEvent(compute, uploaded, 0);
  gpu::launch(double_kernel, dim3(1), dim3(32), 0, compute, data);
  cudaMemcpyAsync(host, data, 128, cudaMemcpyDeviceToHost, compute);
  if (with_wait) cudaStreamSynchronize(compute);
  bool right = true;
  for (int i = 0; i < 32; ++i) right = right && host[i] == 2 * i;
  cudaFreeHost(host);
  cudaFree(data);
  cudaEventDestroy(uploaded);
  cudaStreamDestroy(upload);
  cudaStreamDestroy(compute);
  return right;
}

TEST_CASE("A missing event between streams and a missing wait are found") {
  CHECK(!execute([] { return two_streams(true, true); }).found);
  CHECK(execute([] { return two_streams(false, true); }).found);
  CHECK(execute([] { return two_streams(true, false); }).found);
}

}  // namespace
}  // namespace bitnet::test
