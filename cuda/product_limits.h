// SPDX-License-Identifier: MIT
// Operations a second of large square products on tensor cores, the better of cuBLASLt's and ours; a
// multiplication and an addition are two.
#pragma once

#include "core/base/limit_measurement.h"
#include "cuda/matrix_products.h"

namespace bitnet::cuda {

LimitMeasurement measure_int8_products(cudaStream_t stream, int repeats, MatrixProducts& products);
LimitMeasurement measure_bf16_products(cudaStream_t stream, int repeats, MatrixProducts& products);

}  // namespace bitnet::cuda
