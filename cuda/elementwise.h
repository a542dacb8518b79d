// SPDX-License-Identifier: MIT
// The sum of two arrays, and conversions between fp32 and the 16-bit formats.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

struct Add {
  const float *a, *b;
  float* y;  // a + b; may be a or b
  std::int64_t count;
};

// y = x: fp32 to fp16, nearest even and beyond its range infinity; fp16 and bf16 to fp32, exactly. A NaN
// stays one.
template <typename From, typename To>
struct Convert {
  const From* x;
  To* y;
  std::int64_t count;
};

// cudaErrorInvalidValue for no elements.
cudaError_t add(const Add& op, cudaStream_t stream);
template <typename From, typename To>
cudaError_t convert(const Convert<From, To>& op, cudaStream_t stream);

}  // namespace bitnet::cuda
