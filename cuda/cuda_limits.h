// SPDX-License-Identifier: MIT
// What the GPU gives at most. Everything else on it is judged as a fraction of that. A build
// without CUDA has the same function (no_cuda.cpp).
#pragma once

#include <cstdint>

#include "core/base/limit_measurement.h"

namespace bitnet {

struct CudaLimits {
  // Bytes a second of a kernel that only reads: of memory that no cache holds, and of half the
  // second-level cache over and over.
  LimitMeasurement memory_read, l2_read;
  // Bytes a second from page-locked memory of the host.
  LimitMeasurement copy_to_device;
  // Operations a second of large square products on tensor cores, the better of cuBLASLt's and
  // ours; a multiplication and an addition are two.
  LimitMeasurement int8_dot, bf16_dot;
  std::int64_t l2_bytes = 0;
};

// Of the device of make_cuda_backend(), which has been called before; takes a few seconds. Throws
// DeviceError.
CudaLimits measure_cuda_limits(int repeats);

}  // namespace bitnet
