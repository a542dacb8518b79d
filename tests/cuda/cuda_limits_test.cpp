// SPDX-License-Identifier: MIT
// What `bitnet bench` measures of the GPU, on devices that have little.
#include "cuda/cuda_limits.h"

#include <algorithm>

#include "core/base/error.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

constexpr int kRepeats = 2;

void check(const LimitMeasurement& measurement) {
  CHECK_FALSE(measurement.kernel.empty());
  REQUIRE(measurement.per_second.size() == kRepeats);
  CHECK(*std::min_element(measurement.per_second.begin(), measurement.per_second.end()) > 0);
}

void check(const CudaLimits& limits) {
  for (const LimitMeasurement* measurement :
       {&limits.memory_read, &limits.l2_read, &limits.copy_to_device, &limits.int8_dot,
        &limits.bf16_dot})
    check(*measurement);
  CHECK(limits.l2_bytes > 0);
}

TEST_CASE("every limit of the GPU is measured") {
  emulator::reset();
  {
    const auto gpu = make_cuda_backend();
    check(measure_cuda_limits(kRepeats));
    CHECK_THROWS_AS(measure_cuda_limits(0), ContractError);
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE("without cuBLASLt and with little memory the limits are those of our kernels",
          "[emulator]") {
  emulator::reset();
  emulator::config().device.has_cublaslt = false;
  emulator::config().device.memory_bytes = std::size_t{40} << 20;  // half the cache: 25 MB
  {
    const auto gpu = make_cuda_backend();
    const CudaLimits limits = measure_cuda_limits(kRepeats);
    check(limits);
    CHECK(limits.int8_dot.kernel == "int8_gemm, 128 x 128 x 128");
    CHECK(limits.bf16_dot.kernel == "bf16_gemm, 128 x 128 x 128");
  }
  CHECK(emulator::reset() == 0);
}

}  // namespace
}  // namespace bitnet
