// SPDX-License-Identifier: MIT
// Sizes grow until the device has enough to do: a GPU of any size, or a slow one, is measured in
// about the same time.
#include "cuda/cuda_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "cuda/bf16_gemm.h"
#include "cuda/int8_gemm.h"
#include "cuda/launch_check.h"
#include "cuda/matrix_products.h"
#include "cuda/memory_read.h"
#include "cuda/stopwatch.h"

namespace bitnet {
namespace cuda {
namespace {

constexpr const char* kOperation = "measuring the device's limits";

// A repeat is so long that a launch, a few microseconds, is nothing beside it. What is read in that
// time is many times what a second-level cache holds.
constexpr float kMilliseconds = 2;
constexpr double kWarmUpSeconds = 0.1;  // until the clocks are up
constexpr std::int64_t kLeastRead = std::int64_t{4} << 20;
constexpr std::int64_t kCopied = std::int64_t{32} << 20;
constexpr int kLeastProduct = 128, kLargestProduct = 8192;  // rows, columns and depth

using Issue = std::function<void()>;

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kOperation); }
  ~Stream() {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// The stream outlives it.
class DeviceMemory {
 public:
  DeviceMemory(cudaStream_t stream, std::int64_t bytes) : stream_(stream), bytes_(bytes) {
    check(cudaMalloc(&data_, static_cast<std::size_t>(bytes)), kOperation);
  }
  ~DeviceMemory() {
    cudaStreamSynchronize(stream_);
    cudaFree(data_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void zero() const {
    check(cudaMemsetAsync(data_, 0, static_cast<std::size_t>(bytes_), stream_), kOperation);
  }
  // By ordinary numbers: zeros take less power, with which the clocks are higher.
  template <typename T>
  void fill(const std::vector<T>& pattern) const {
    const auto whole = static_cast<std::int64_t>(pattern.size() * sizeof(T));
    for (std::int64_t at = 0; at < bytes_; at += whole) {
      const auto count = static_cast<std::size_t>(std::min(whole, bytes_ - at));
      check(cudaMemcpyAsync(as<std::byte>() + at, pattern.data(), count, cudaMemcpyHostToDevice,
                            stream_),
            kOperation);
    }
    check(cudaStreamSynchronize(stream_), kOperation);
  }

 private:
  cudaStream_t stream_;
  std::int64_t bytes_;
  void* data_ = nullptr;
};

std::vector<std::int8_t> random_codes() {
  std::minstd_rand random(1);
  std::vector<std::int8_t> codes(std::size_t{1} << 22);
  for (auto& code : codes) code = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
  return codes;
}
// Multiples of 1/128 in (-1, 1).
std::vector<__nv_bfloat16> random_bf16() {
  std::vector<__nv_bfloat16> numbers;
  for (const std::int8_t code : random_codes())
    numbers.push_back(__float2bfloat16_rn(static_cast<float>(code) / 128));
  return numbers;
}

// `amount` is of one issue.
LimitMeasurement measure(cudaStream_t stream, int repeats, std::string name, double amount,
                         const Issue& issue) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  do {
    issue();
    check(cudaStreamSynchronize(stream), kOperation);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < kWarmUpSeconds);
  int issues = 1;
  const auto milliseconds = [&] {
    return milliseconds_of(stream, kOperation, [&] {
      for (int i = 0; i < issues; ++i) issue();
    });
  };
  while (milliseconds() < kMilliseconds) issues *= 2;
  LimitMeasurement measurement{std::move(name), {}};
  for (int i = 0; i < repeats; ++i)
    measurement.per_second.push_back(1e3 * amount * issues / static_cast<double>(milliseconds()));
  return measurement;
}

bool long_enough(cudaStream_t stream, const Issue& issue) {
  issue();  // the first is slower
  return milliseconds_of(stream, kOperation, issue) >= kMilliseconds;
}

std::int64_t attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), kOperation);
  check(cudaDeviceGetAttribute(&value, which, device), kOperation);
  return value;
}

std::int64_t free_bytes() {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), kOperation);
  return static_cast<std::int64_t>(free);
}

// --- reading ---

// Reads of one buffer.
class Reads {
 public:
  Reads(cudaStream_t stream, std::int64_t bytes)
      : stream_(stream),
        blocks_(static_cast<int>(std::min<std::int64_t>(
            memory_read_blocks(static_cast<int>(attribute(cudaDevAttrMultiProcessorCount))),
            bytes / kReadTile))),
        bytes_(bytes),
        from_(stream, bytes),
        sums_(stream, std::int64_t{blocks_} * kReadThreads * 4) {
    from_.fill(random_codes());
  }
  void issue(int rounds) const {
    check(
        memory_read({from_.as<std::uint8_t>(), bytes_, rounds, blocks_, sums_.as<std::uint32_t>()},
                    stream_),
        kOperation);
  }

 private:
  cudaStream_t stream_;
  int blocks_;
  std::int64_t bytes_;
  DeviceMemory from_, sums_;
};

LimitMeasurement measure_memory_read(cudaStream_t stream, int repeats) {
  for (std::int64_t bytes = kLeastRead;; bytes *= 2) {
    const std::int64_t most = free_bytes() / 2;
    const Reads reads(stream, bytes);
    const Issue once = [&] { reads.issue(1); };
    if (2 * bytes <= most && !long_enough(stream, once)) continue;
    return measure(stream, repeats, fmt::format("reads of {} MiB", bytes >> 20),
                   static_cast<double>(bytes), once);
  }
}

LimitMeasurement measure_l2_read(cudaStream_t stream, int repeats, std::int64_t l2_bytes) {
  const std::int64_t bytes = std::max<std::int64_t>(1, l2_bytes / 2 / kReadTile) * kReadTile;
  const Reads reads(stream, bytes);
  int rounds = 1;
  const Issue issue = [&] { reads.issue(rounds); };
  while (!long_enough(stream, issue)) rounds *= 2;
  return measure(stream, repeats, fmt::format("reads of {} KiB", bytes >> 10),
                 static_cast<double>(rounds) * static_cast<double>(bytes), issue);
}

LimitMeasurement measure_copy(cudaStream_t stream, int repeats) {
  const auto bytes = static_cast<std::size_t>(kCopied);
  void* memory = nullptr;
  check(cudaMallocHost(&memory, bytes), kOperation);
  const std::unique_ptr<void, cudaError_t (*)(void*)> host(memory, cudaFreeHost);
  std::memset(memory, 1, bytes);
  const DeviceMemory device(stream, kCopied);
  return measure(stream, repeats, "page-locked", static_cast<double>(kCopied), [&] {
    check(cudaMemcpyAsync(device.as<void>(), memory, bytes, cudaMemcpyHostToDevice, stream),
          kOperation);
  });
}

// --- products ---

// Operands of square products of n, and room for what they give, fp32 or int32.
template <typename T>
struct Square {
  int n;
  DeviceMemory a, b, y, scales;

  Square(cudaStream_t stream, int size, const std::vector<T>& numbers)
      : n(size),
        a(stream, elements() * static_cast<std::int64_t>(sizeof(T))),
        b(stream, elements() * static_cast<std::int64_t>(sizeof(T))),
        y(stream, 4 * elements()),
        scales(stream, 4 * std::int64_t{n}) {
    a.fill(numbers);
    b.fill(numbers);
    scales.zero();
  }
  std::int64_t elements() const { return std::int64_t{n} * n; }
};

// `multiply` issues a product, or returns false where it cannot.
template <typename T>
LimitMeasurement measure_product(
    cudaStream_t stream, int repeats, const char* name, const std::vector<T>& numbers,
    const std::type_identity_t<std::function<bool(const Square<T>&)>>& multiply) {
  for (int n = kLeastProduct;; n *= 2) {
    const std::int64_t larger = std::int64_t{4} * n * n * (2 * std::int64_t{sizeof(T)} + 4);
    const bool last = n == kLargestProduct || larger > free_bytes() / 2;
    const Square<T> square(stream, n, numbers);
    if (!multiply(square)) return {};
    const Issue issue = [&] { multiply(square); };
    if (!last && !long_enough(stream, issue)) continue;
    const double side = n;
    return measure(stream, repeats, fmt::format("{}, {} x {} x {}", name, n, n, n),
                   2 * side * side * side, issue);
  }
}

LimitMeasurement better(LimitMeasurement a, LimitMeasurement b) {
  if (!b.per_second.empty()) keep_better(a, std::move(b));
  return a;
}

LimitMeasurement measure_int8(cudaStream_t stream, int repeats, MatrixProducts& products) {
  const std::vector<std::int8_t> numbers = random_codes();
  using Codes = Square<std::int8_t>;
  return better(measure_product(stream, repeats, "int8_gemm", numbers,
                                [&](const Codes& s) {
                                  const auto* const scale = s.scales.as<float>();
                                  const Int8Gemm product{.a = s.a.as<std::int8_t>(),
                                                         .b = s.b.as<std::int8_t>(),
                                                         .rows = s.n,
                                                         .columns = s.n,
                                                         .depth = s.n,
                                                         .kind = Int8Scale::tensor,
                                                         .scale = scale,
                                                         .group_size = 0,
                                                         .row_scale = scale,
                                                         .addend = nullptr,
                                                         .fused = false,
                                                         .y = s.y.as<float>()};
                                  check(int8_gemm(product, Int8GemmTile::large, stream),
                                        kOperation);
                                  return true;
                                }),
                measure_product(stream, repeats, "cuBLASLt", numbers, [&](const Codes& s) {
                  return products.int8({s.n, s.n, s.n}, s.a.as<std::int8_t>(),
                                       s.b.as<std::int8_t>(), s.y.as<std::int32_t>());
                }));
}

LimitMeasurement measure_bf16(cudaStream_t stream, int repeats, MatrixProducts& products) {
  const std::vector<__nv_bfloat16> numbers = random_bf16();
  using Floats = Square<__nv_bfloat16>;
  return better(
      measure_product(stream, repeats, "bf16_gemm", numbers,
                      [&](const Floats& s) {
                        const Bf16Gemm product{.a = s.a.as<__nv_bfloat16>(),
                                               .b = s.b.as<__nv_bfloat16>(),
                                               .y = s.y.as<float>(),
                                               .rows = s.n,
                                               .columns = s.n,
                                               .depth = s.n};
                        check(bf16_gemm(product, Bf16GemmTile::large, stream), kOperation);
                        return true;
                      }),
      measure_product(stream, repeats, "cuBLASLt", numbers, [&](const Floats& s) {
        return products.bf16({s.n, s.n, s.n}, s.a.as<__nv_bfloat16>(), s.b.as<__nv_bfloat16>(),
                             s.y.as<float>(), /*accumulate=*/false);
      }));
}

}  // namespace
}  // namespace cuda

CudaLimits measure_cuda_limits(int repeats) {
  using namespace cuda;
  BITNET_CHECK(repeats >= 1, "{} repeats", repeats);
  const Stream stream;
  CudaLimits limits;
  limits.l2_bytes = attribute(cudaDevAttrL2CacheSize);
  limits.memory_read = measure_memory_read(stream, repeats);
  limits.l2_read = measure_l2_read(stream, repeats, limits.l2_bytes);
  limits.copy_to_device = measure_copy(stream, repeats);
  MatrixProducts products(stream);
  limits.int8_dot = measure_int8(stream, repeats, products);
  limits.bf16_dot = measure_bf16(stream, repeats, products);
  return limits;
}

}  // namespace bitnet
