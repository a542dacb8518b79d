// SPDX-License-Identifier: MIT
// The emulated runtime behaves as the CUDA programming guide says: limits, errors, streams, events,
// graphs.
#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cuda/gpu.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::test {
namespace {

using emulator::config;
using emulator::Schedule;
using emulator::StreamMode;

// A new device for each test.
struct Fixture {
  Fixture() { emulator::reset(); }
  ~Fixture() { emulator::reset(); }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;
};

__global__ void nothing_kernel(int*) {}
__global__ void add_kernel(int* data, int amount) { data[threadIdx.x] += amount; }
__global__ void scale_kernel(int* data, int factor) { data[threadIdx.x] *= factor; }
__global__ void failing_kernel(int* data) { data[1024] = 1; }
__global__ void places_kernel(int* data) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned at = block * blockDim.x * blockDim.y * blockDim.z + thread;
  data[at] = static_cast<int>(at);
}
__global__ void counter_kernel(int* data) {
  atomicAdd(data, 1);
  atomicMax(data + 1, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
}
__global__ void dynamic_kernel(int* data) {
  BITNET_DYNAMIC_SHARED(int, numbers);
  numbers[threadIdx.x] = 7;
  data[threadIdx.x] = numbers[threadIdx.x];
}

cudaError_t launch_nothing(dim3 grid, dim3 block, std::size_t shared_bytes = 0) {
  return gpu::launch(nothing_kernel, grid, block, shared_bytes, nullptr, nullptr);
}

TEST_CASE_METHOD(Fixture, "Each thread of a grid runs once, at its own place") {
  in_each_execution([] {
    DeviceArray<int> data(3 * 2 * 2 * 8 * 2 * 3);
    REQUIRE(gpu::launch(places_kernel, dim3(3, 2, 2), dim3(8, 2, 3), 0, nullptr, data.data()) ==
            cudaSuccess);
    const std::vector<int> values = data.to_host();
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(values[i] == static_cast<int>(i));
  });
}

TEST_CASE_METHOD(Fixture, "Atomics count over blocks") {
  in_each_execution([] {
    DeviceArray<int> data(std::vector<int>{0, 0});
    REQUIRE(gpu::launch(counter_kernel, dim3(5), dim3(40), 0, nullptr, data.data()) == cudaSuccess);
    CHECK(data.to_host() == std::vector<int>{200, 199});
  });
}

TEST_CASE_METHOD(Fixture, "Grids and blocks beyond the limits are refused") {
  CHECK(launch_nothing(dim3(1), dim3(1024)) == cudaSuccess);
  CHECK(launch_nothing(dim3(1), dim3(1025)) == cudaErrorInvalidConfiguration);
  CHECK(launch_nothing(dim3(1), dim3(0)) == cudaErrorInvalidConfiguration);
  CHECK(launch_nothing(dim3(1), dim3(1, 1, 65)) == cudaErrorInvalidConfiguration);
  CHECK(launch_nothing(dim3(1, 65536), dim3(1)) == cudaErrorInvalidConfiguration);
  CHECK(launch_nothing(dim3(0), dim3(1)) == cudaErrorInvalidConfiguration);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);  // and is forgotten by that
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
}

TEST_CASE_METHOD(Fixture, "More than 48 KB of shared memory need the kernel's permission") {
  DeviceArray<int> data(32);
  const auto launch = [&](std::size_t bytes) {
    return gpu::launch(dynamic_kernel, dim3(1), dim3(32), bytes, nullptr, data.data());
  };
  CHECK(launch(48 << 10) == cudaSuccess);
  CHECK(launch((48 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(gpu::allow_shared_bytes(dynamic_kernel, 100 << 10) == cudaSuccess);
  CHECK(launch(100 << 10) == cudaSuccess);
  CHECK(launch((100 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(gpu::allow_shared_bytes(dynamic_kernel, (227 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(data.to_host() == std::vector<int>(32, 7));
}

TEST_CASE_METHOD(Fixture, "A kernel's failure stays until the device is reset") {
  DeviceArray<int> data(4);
  REQUIRE(gpu::launch(failing_kernel, dim3(1), dim3(1), 0, nullptr, data.data()) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(std::string(cudaGetErrorString(cudaErrorIllegalAddress)).find("illegal address") == 0);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  void* more = nullptr;
  CHECK(cudaMalloc(&more, 16) == cudaErrorIllegalAddress);
  CHECK(launch_nothing(dim3(1), dim3(1)) == cudaErrorIllegalAddress);
  emulator::reset();
  CHECK(launch_nothing(dim3(1), dim3(1)) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
}

TEST_CASE_METHOD(Fixture, "Copies outside an allocation or in the wrong direction are refused") {
  DeviceArray<char> data(100);
  char host[200] = {};
  CHECK(cudaMemcpy(data.data(), host, 101, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(data.data() + 1, host, 100, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, data.data(), 100, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, host + 100, 100, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemset(data.data(), 0, 101) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(data.data(), host, 100, cudaMemcpyDefault) == cudaSuccess);
}

TEST_CASE_METHOD(Fixture, "Device memory is limited, poisoned, and counted") {
  config().device.memory_bytes = 1000;
  config().poison = 0xA7;
  {
    DeviceArray<unsigned char> most(900);
    CHECK(most.to_host() == std::vector<unsigned char>(900, 0xA7));
    void* more = nullptr;
    CHECK(cudaMalloc(&more, 101) == cudaErrorMemoryAllocation);
    std::size_t available = 0, total = 0;
    CHECK(cudaMemGetInfo(&available, &total) == cudaSuccess);
    CHECK(available == 100);
    CHECK(total == 1000);
    CHECK(cudaFree(most.data() + 1) == cudaErrorInvalidValue);
  }
  void* forgotten = nullptr;
  REQUIRE(cudaMalloc(&forgotten, 300) == cudaSuccess);
  CHECK(emulator::reset() == 300);
}

TEST_CASE_METHOD(Fixture, "A machine without a driver says so and leaves the count alone") {
  config().device.state = cudaErrorInsufficientDriver;
  int count = 7, version = 7;
  CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
  CHECK(count == 7);
  CHECK(cudaDriverGetVersion(&version) == cudaSuccess);
  CHECK(version == 0);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 16) == cudaErrorInsufficientDriver);
  CHECK(launch_nothing(dim3(1), dim3(1)) == cudaErrorInsufficientDriver);
}

TEST_CASE_METHOD(Fixture, "The device tells its properties") {
  config().device.compute_major = 8;
  config().device.compute_minor = 9;
  cudaDeviceProp properties;
  REQUIRE(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
  CHECK(properties.major == 8);
  CHECK(properties.sharedMemPerBlockOptin == 227 << 10);
  int minor = 0;
  CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) == cudaSuccess);
  CHECK(minor == 9);
  CHECK(cudaGetDeviceProperties(&properties, 1) == cudaErrorInvalidDevice);
}

// --- streams ---

// Pinned host memory of 4 ints.
struct Pinned {
  Pinned() {
    REQUIRE(cudaMallocHost(reinterpret_cast<void**>(&numbers), 16) == cudaSuccess);
    std::fill_n(numbers, 4, 0);
  }
  ~Pinned() { cudaFreeHost(numbers); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  int* numbers = nullptr;
};

TEST_CASE_METHOD(Fixture, "Lazy streams work only when waited for, eager ones at once") {
  const bool lazy = GENERATE(true, false);
  config().streams = lazy ? StreamMode::lazy : StreamMode::eager;
  const Stream stream;
  DeviceArray<int> data(std::vector<int>(4, 5));
  Pinned host;
  REQUIRE(cudaMemcpyAsync(host.numbers, data.data(), 16, cudaMemcpyDeviceToHost, stream) ==
          cudaSuccess);
  CHECK(host.numbers[0] == (lazy ? 0 : 5));
  CHECK(cudaStreamQuery(stream) == cudaSuccess);
  CHECK(host.numbers[0] == 5);
}

TEST_CASE_METHOD(Fixture, "Pinned memory is read when the copy runs, pageable memory at the call") {
  const Stream stream;
  DeviceArray<int> data(4);
  Pinned pinned;
  std::vector<int> pageable(4, 1);
  REQUIRE(cudaMemcpyAsync(data.data(), pageable.data(), 16, cudaMemcpyHostToDevice, stream) ==
          cudaSuccess);
  pageable.assign(4, 2);
  CHECK(data.to_host() == std::vector<int>(4, 1));
  REQUIRE(cudaMemcpyAsync(data.data(), pinned.numbers, 16, cudaMemcpyHostToDevice, stream) ==
          cudaSuccess);
  std::fill_n(pinned.numbers, 4, 3);
  CHECK(data.to_host() == std::vector<int>(4, 3));
}

TEST_CASE_METHOD(Fixture, "The default stream waits for blocking streams and they for it") {
  cudaStream_t blocking = nullptr;
  REQUIRE(cudaStreamCreate(&blocking) == cudaSuccess);
  DeviceArray<int> data(std::vector<int>(4, 1));
  const auto add = [&](cudaStream_t s) {
    return gpu::launch(add_kernel, dim3(1), dim3(4), 0, s, data.data(), 1);
  };
  const auto twice = [&](cudaStream_t s) {
    return gpu::launch(scale_kernel, dim3(1), dim3(4), 0, s, data.data(), 2);
  };
  REQUIRE(add(blocking) == cudaSuccess);   // 2
  REQUIRE(twice(nullptr) == cudaSuccess);  // 4
  REQUIRE(add(blocking) == cudaSuccess);   // 5
  std::vector<int> values(4);
  REQUIRE(cudaMemcpyAsync(values.data(), data.data(), 16, cudaMemcpyDeviceToHost, blocking) ==
          cudaSuccess);
  REQUIRE(cudaStreamSynchronize(blocking) == cudaSuccess);
  CHECK(values == std::vector<int>(4, 5));
  CHECK(cudaStreamDestroy(blocking) == cudaSuccess);
  CHECK(cudaStreamSynchronize(blocking) == cudaErrorInvalidResourceHandle);
}

TEST_CASE_METHOD(Fixture, "An event runs exactly what was issued before it") {
  const Stream first, second;
  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  DeviceArray<int> data(std::vector<int>(4, 1));
  const auto add = [&](int amount) {
    return gpu::launch(add_kernel, dim3(1), dim3(4), 0, first, data.data(), amount);
  };
  REQUIRE(add(10) == cudaSuccess);
  REQUIRE(cudaEventRecord(event, first) == cudaSuccess);
  REQUIRE(add(100) == cudaSuccess);
  REQUIRE(cudaStreamWaitEvent(second, event, 0) == cudaSuccess);
  Pinned host;
  REQUIRE(cudaMemcpyAsync(host.numbers, data.data(), 16, cudaMemcpyDeviceToHost, second) ==
          cudaSuccess);
  REQUIRE(cudaStreamSynchronize(second) == cudaSuccess);
  CHECK(host.numbers[0] == 11);
  CHECK(data.to_host() == std::vector<int>(4, 111));
  float milliseconds = 0;
  REQUIRE(cudaEventSynchronize(event) == cudaSuccess);
  CHECK(cudaEventElapsedTime(&milliseconds, event, event) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaSuccess);
  CHECK(cudaEventDestroy(event) == cudaSuccess);
  CHECK(cudaEventRecord(event, first) == cudaErrorInvalidResourceHandle);
}

// --- graphs ---

struct Graph {
  explicit Graph(cudaStream_t stream, const std::function<void()>& record) {
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    record();
    status = cudaStreamEndCapture(stream, &graph);
    if (status == cudaSuccess) REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  }
  ~Graph() {
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (executable != nullptr) cudaGraphExecDestroy(executable);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaError_t status = cudaSuccess;
};

TEST_CASE_METHOD(Fixture,
                 "A captured graph does nothing until it is launched, then the same each time") {
  in_each_execution([] {
    const Stream stream;
    DeviceArray<int> data(std::vector<int>(4, 1));
    const Graph graph(stream, [&] {
      CHECK(gpu::launch(add_kernel, dim3(1), dim3(4), 0, stream, data.data(), 2) == cudaSuccess);
      CHECK(gpu::launch(scale_kernel, dim3(1), dim3(4), 0, stream, data.data(), 3) == cudaSuccess);
      cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
      CHECK(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
      CHECK(status == cudaStreamCaptureStatusActive);
    });
    REQUIRE(graph.status == cudaSuccess);
    CHECK(data.to_host() == std::vector<int>(4, 1));
    REQUIRE(cudaGraphLaunch(graph.executable, stream) == cudaSuccess);
    CHECK(data.to_host() == std::vector<int>(4, 9));
    REQUIRE(cudaGraphLaunch(graph.executable, stream) == cudaSuccess);
    CHECK(data.to_host() == std::vector<int>(4, 33));
  });
}

// Two streams in one graph; without the second event nothing orders the two kernels on `data`.
std::vector<int> forked(bool ordered, cudaError_t& status) {
  const Stream stream, side;
  cudaEvent_t fork = nullptr, done = nullptr, scaled = nullptr;
  for (cudaEvent_t* e : {&fork, &done, &scaled}) REQUIRE(cudaEventCreate(e) == cudaSuccess);
  DeviceArray<int> data(std::vector<int>(4, 1));
  const Graph graph(stream, [&] {
    cudaEventRecord(fork, stream);
    cudaStreamWaitEvent(side, fork, 0);
    gpu::launch(add_kernel, dim3(1), dim3(4), 0, side, data.data(), 2);
    cudaEventRecord(done, side);
    if (ordered) cudaStreamWaitEvent(stream, done, 0);
    gpu::launch(scale_kernel, dim3(1), dim3(4), 0, stream, data.data(), 3);
    cudaStreamWaitEvent(stream, done, 0);
  });
  status = graph.status;
  if (status == cudaSuccess) cudaGraphLaunch(graph.executable, stream);
  std::vector<int> values = data.to_host();
  for (cudaEvent_t e : {fork, done, scaled}) cudaEventDestroy(e);
  return values;
}

TEST_CASE_METHOD(Fixture, "A graph keeps the order that events gave it and no other") {
  bool unordered_differs = false;
  in_each_execution([&] {
    cudaError_t status = cudaSuccess;
    CHECK(forked(true, status) == std::vector<int>(4, 9));
    CHECK(status == cudaSuccess);
    unordered_differs = unordered_differs || forked(false, status) != std::vector<int>(4, 9);
  });
  CHECK(unordered_differs);
}

TEST_CASE_METHOD(Fixture, "Calls that wait or allocate break a capture") {
  const Stream stream, side;
  DeviceArray<int> data(std::vector<int>(4, 1));
  void* memory = nullptr;
  const Graph waits(
      stream, [&] { CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported); });
  CHECK(waits.status == cudaErrorStreamCaptureInvalidated);
  const Graph allocates(
      stream, [&] { CHECK(cudaMalloc(&memory, 16) == cudaErrorStreamCaptureUnsupported); });
  CHECK(allocates.status == cudaErrorStreamCaptureInvalidated);

  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreate(&event) == cudaSuccess);
  const Graph forgotten(stream, [&] {
    cudaEventRecord(event, stream);
    cudaStreamWaitEvent(side, event, 0);
    gpu::launch(add_kernel, dim3(1), dim3(4), 0, side, data.data(), 2);
  });
  CHECK(forgotten.status == cudaErrorStreamCaptureUnjoined);
  REQUIRE(cudaEventDestroy(event) == cudaSuccess);
  CHECK(data.to_host() == std::vector<int>(4, 1));
}

}  // namespace
}  // namespace bitnet::test
