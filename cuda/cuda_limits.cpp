// SPDX-License-Identifier: MIT
#include "cuda/cuda_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/base/error.h"
#include "cuda/limit_measuring.h"
#include "cuda/matrix_products.h"
#include "cuda/memory_read.h"
#include "cuda/product_limits.h"

namespace bitnet {
namespace cuda {
namespace {

constexpr std::int64_t kLeastRead = std::int64_t{4} << 20;
constexpr std::int64_t kCopied = std::int64_t{32} << 20;

// Reads of one buffer.
class Reads {
 public:
  Reads(cudaStream_t stream, std::int64_t bytes)
      : stream_(stream),
        blocks_(static_cast<int>(std::min<std::int64_t>(
            memory_read_blocks(static_cast<int>(device_attribute(cudaDevAttrMultiProcessorCount))),
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
        kMeasuring);
  }

 private:
  cudaStream_t stream_;
  int blocks_;
  std::int64_t bytes_;
  DeviceMemory from_, sums_;
};

LimitMeasurement measure_memory_read(cudaStream_t stream, int repeats) {
  for (std::int64_t bytes = kLeastRead;; bytes *= 2) {
    const std::int64_t most = free_device_bytes() / 2;
    const Reads reads(stream, bytes);
    const Issue once = [&] { reads.issue(1); };
    if (2 * bytes <= most && !long_enough(stream, once)) continue;
    return measure_limit(stream, repeats, fmt::format("reads of {} MiB", bytes >> 20),
                         static_cast<double>(bytes), once);
  }
}

LimitMeasurement measure_l2_read(cudaStream_t stream, int repeats, std::int64_t l2_bytes) {
  const std::int64_t bytes = std::max<std::int64_t>(1, l2_bytes / 2 / kReadTile) * kReadTile;
  const Reads reads(stream, bytes);
  int rounds = 1;
  const Issue issue = [&] { reads.issue(rounds); };
  while (!long_enough(stream, issue)) rounds *= 2;
  return measure_limit(stream, repeats, fmt::format("reads of {} KiB", bytes >> 10),
                       static_cast<double>(rounds) * static_cast<double>(bytes), issue);
}

LimitMeasurement measure_copy(cudaStream_t stream, int repeats) {
  const auto bytes = static_cast<std::size_t>(kCopied);
  void* memory = nullptr;
  check(cudaMallocHost(&memory, bytes), kMeasuring);
  const std::unique_ptr<void, cudaError_t (*)(void*)> host(memory, cudaFreeHost);
  std::memset(memory, 1, bytes);
  const DeviceMemory device(stream, kCopied);
  return measure_limit(stream, repeats, "page-locked", static_cast<double>(kCopied), [&] {
    check(cudaMemcpyAsync(device.as<void>(), memory, bytes, cudaMemcpyHostToDevice, stream),
          kMeasuring);
  });
}

}  // namespace
}  // namespace cuda

CudaLimits measure_cuda_limits(int repeats) {
  using namespace cuda;
  BITNET_CHECK(repeats >= 1, "{} repeats", repeats);
  const Stream stream;
  CudaLimits limits;
  limits.l2_bytes = device_attribute(cudaDevAttrL2CacheSize);
  limits.memory_read = measure_memory_read(stream, repeats);
  limits.l2_read = measure_l2_read(stream, repeats, limits.l2_bytes);
  limits.copy_to_device = measure_copy(stream, repeats);
  MatrixProducts products(stream);
  limits.int8_dot = measure_int8_products(stream, repeats, products);
  limits.bf16_dot = measure_bf16_products(stream, repeats, products);
  return limits;
}

}  // namespace bitnet
