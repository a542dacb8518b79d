// SPDX-License-Identifier: MIT
// Codes of weights in two bits: made from weights and their scales, back to weights, counted.
// Byte k of the packed matrix holds code + 1 of elements k, k + n, k + 2n, k + 3n in its bits 0-1, 2-3,
// 4-5, 6-7, where n is a quarter of the elements.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

namespace bitnet::cuda {

enum class WeightCode : std::uint8_t {
  ternary,  // RoundClip(w * (1 / scale), -1, 1); 0 where that is NaN
  binary,   // +1 where w - mean > 0, else -1
};

struct PackWeights {
  const float* w;         // [elements], aligned to 16 bytes
  std::int64_t elements;  // below 2^32; a quarter of them is a multiple of 4
  std::int64_t
      group_size;          // of consecutive elements that share a constant: all, or a multiple of 4
                           // that divides a quarter
  const float* constants;  // [elements / group_size]: scales for ternary codes, means for binary
  std::uint8_t* packed;    // [elements / 4], aligned to 4 bytes
  int* flips;              // [1], = how many codes differ from those that were in `packed`; or null
};

struct UnpackWeights {
  const std::uint8_t* packed;
  const float* scales;  // [elements / group_size]
  std::int64_t elements, group_size;
  float* w;  // scale * code
};

// How often the two bits are 1, 2 and 3.
struct PackedCounts {
  unsigned long long zero, plus, invalid;
};

// cudaErrorInvalidValue for sizes that do not fit.
cudaError_t pack_weights(WeightCode code, std::span<const PackWeights> matrices,
                         cudaStream_t stream);
cudaError_t unpack_weights(const UnpackWeights& op, cudaStream_t stream);
// Any number of bytes, any alignment.
cudaError_t count_packed(const std::uint8_t* packed, std::int64_t bytes, PackedCounts* counts,
                         cudaStream_t stream);

}  // namespace bitnet::cuda
