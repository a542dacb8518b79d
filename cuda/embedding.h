// SPDX-License-Identifier: MIT
// Rows of a table by token, and the gradient of the table. A token outside the table gives a row of
// NaN, so that it shows in the loss, and has no gradient.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

template <typename Table>  // float or __nv_bfloat16
struct Embedding {
  const std::int32_t* tokens;            // [rows]
  const Table* table;                    // [V, D]
  float* y;                              // [rows, D]
  std::int64_t rows, vocabulary, width;  // V, D
};

struct EmbeddingBackward {
  const std::int32_t* tokens;
  const float* dy;  // [rows, D]
  float* dtable;    // [V, D], += the rows of dy with that token, one after the other
  std::int64_t rows, vocabulary, width;
};

// cudaErrorInvalidValue for sizes that do not fit: below 1, or 2^31 rows or more.
template <typename Table>
cudaError_t embedding(const Embedding<Table>& op, cudaStream_t stream);
cudaError_t embedding_backward(const EmbeddingBackward& op, cudaStream_t stream);

}  // namespace bitnet::cuda
