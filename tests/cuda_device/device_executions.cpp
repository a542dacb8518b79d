// SPDX-License-Identifier: MIT
// A real device in the emulator's place: it executes in one way only, and what tests tell the
// emulator has no effect.
#include <cuda_runtime_api.h>

#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace test {

void for_each_execution(const std::function<bool(const std::string& execution)>& body) {
  body("the device");
}

void in_each_execution(const std::function<void()>& body) {
  body();
  CHECK(std::string(cudaGetErrorString(cudaDeviceSynchronize())) == "no error");
}

}  // namespace test

namespace emulator {

Config& config() {
  static Config instance;
  return instance;
}
Statistics& statistics() {
  static Statistics instance;
  return instance;
}
const std::map<const void*, KernelUse>& executed_kernels() {
  static const std::map<const void*, KernelUse> none;
  return none;
}
const std::string& last_failure() {
  static std::string text;
  const cudaError_t error = cudaPeekAtLastError();
  return text = error == cudaSuccess ? "" : cudaGetErrorString(error);
}
std::size_t reset() {
  config() = Config();
  cudaDeviceSynchronize();
  return 0;
}

}  // namespace emulator
}  // namespace bitnet
