// SPDX-License-Identifier: MIT
// Cross-entropy of rows of logits:
//   loss = log(sum exp(logits)) - logits[target],  dlogits = scale * (softmax(logits) - onehot)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

struct CrossEntropy {
  const float* logits;          // [rows, V]
  const std::int32_t* targets;  // [rows]; -1: loss and gradient are 0. Outside [-1, V): both NaN
  float* loss;                  // [rows]
  float scale;
  float* dlogits;  // [rows, V], may be logits; or null
  int rows, vocabulary;
};

// cudaErrorInvalidValue for no rows or no vocabulary.
cudaError_t cross_entropy(const CrossEntropy& op, cudaStream_t stream);

}  // namespace bitnet::cuda
