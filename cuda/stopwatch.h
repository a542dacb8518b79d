// SPDX-License-Identifier: MIT
// How long work takes on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace bitnet::cuda {

// Of what `issue` puts on the stream; waits for it.
float milliseconds_of(cudaStream_t stream, const char* operation,
                      const std::function<void()>& issue);

}  // namespace bitnet::cuda
