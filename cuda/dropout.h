// SPDX-License-Identifier: MIT
// Dropout by the words of core/base/random.h's RandomStream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

// y[i] = x[i] / keep where word i % 4 of the stream's block first_block + i / 4 is above
// last_dropped, else 0. y may be x.
struct Dropout {
  const float* x;
  float* y;
  std::int64_t count;
  std::uint64_t seed;
  std::uint32_t step, purpose;
  std::uint64_t first_block;
  std::uint32_t last_dropped;
  float keep;
};

// cudaErrorInvalidValue for no elements.
cudaError_t dropout(const Dropout& op, cudaStream_t stream);

}  // namespace bitnet::cuda
