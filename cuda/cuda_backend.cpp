// SPDX-License-Identifier: MIT
// Memory, copies and recorded operations of the CUDA backend.
#include <limits>

#include "cuda/cuda_backend_impl.h"
#include "cuda/matrix_products.h"

namespace bitnet::cuda {
namespace {

// A graph of kernels that read the position from device memory.
class RecordedGraph final : public RecordedOperations {
 public:
  ~RecordedGraph() override { clear(); }
  void clear() {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
    executable = nullptr;
  }
  cudaGraphExec_t executable = nullptr;
  std::int64_t workspace_generation = 0;  // its kernels use the workspace's addresses
  bool too_large = false;                 // for the device's memory; not tried again
};

std::size_t size(std::int64_t bytes) { return static_cast<std::size_t>(bytes); }

}  // namespace

CudaBackend::CudaBackend(const CudaDevice& device)
    : detail_(fmt::format("{}, {}", device.name, device.architecture)),
      memory_bytes_(device.memory_bytes) {
  check(cudaSetDevice(device.index), "choosing the device");
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  staging_ = std::make_unique<HostStaging>(stream_);
  products_ = std::make_unique<MatrixProducts>(stream_);
  check(cudaMalloc(reinterpret_cast<void**>(&recorded_position_), sizeof(int)),
        "allocating a counter");
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  cudaFree(recorded_position_);
  products_.reset();
  staging_.reset();
  cudaStreamDestroy(stream_);
}

Storage CudaBackend::allocate(std::int64_t bytes) {
  BITNET_CHECK(bytes >= 0, "{} bytes", bytes);
  void* memory = nullptr;
  // At least one byte: a null pointer would mean an absent tensor.
  const cudaError_t error = cudaMalloc(&memory, size(std::max<std::int64_t>(bytes, 1)));
  if (error != cudaSuccess) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    if (error == cudaErrorMemoryAllocation && cudaMemGetInfo(&free, &total) == cudaSuccess) {
      throw DeviceError(fmt::format(
          "not enough memory on the GPU: {:.1f} MB wanted, {:.1f} of {:.1f} MB free; use a smaller "
          "batch, sequence or model",
          static_cast<double>(bytes) / 1e6, static_cast<double>(free) / 1e6,
          static_cast<double>(total) / 1e6));
    }
    check(error, "allocating memory");
  }
  Storage storage(static_cast<std::byte*>(memory), [](std::byte* data) { cudaFree(data); });
  check(cudaMemsetAsync(memory, 0, size(bytes), stream_), "clearing memory");
  return storage;
}

void CudaBackend::copy_from_host(const void* source, TensorView destination) {
  const std::size_t bytes = size(destination.bytes());
  if (bytes == 0) return;
  if (bytes <= HostStaging::kMostBytes) return staging_->copy(source, bytes, destination.raw());
  check(cudaMemcpyAsync(destination.raw(), source, bytes, cudaMemcpyHostToDevice, stream_),
        "copying to the device");
  check(cudaStreamSynchronize(stream_), "copying to the device");
}

void CudaBackend::copy_to_host(ConstTensorView source, void* destination) {
  if (source.bytes() == 0) return;
  check(cudaMemcpyAsync(destination, source.raw(), size(source.bytes()), cudaMemcpyDeviceToHost,
                        stream_),
        "copying to the host");
  check(cudaStreamSynchronize(stream_), "copying to the host");
}

void CudaBackend::copy(ConstTensorView source, TensorView destination) {
  BITNET_CHECK(source.dtype() == destination.dtype() && source.elements() == destination.elements(),
               "copy of {} {} to {} {}", to_string(source.dtype()), source.shape().to_string(),
               to_string(destination.dtype()), destination.shape().to_string());
  if (source.bytes() == 0) return;
  check(cudaMemcpyAsync(destination.raw(), source.raw(), size(source.bytes()),
                        cudaMemcpyDeviceToDevice, stream_),
        "copying");
}

void CudaBackend::zero(TensorView x) {
  if (x.bytes() == 0) return;
  check(cudaMemsetAsync(x.raw(), 0, size(x.bytes()), stream_), "clearing memory");
}

void CudaBackend::synchronize() { check(cudaStreamSynchronize(stream_), "waiting for the device"); }

Position CudaBackend::position(std::int64_t position) const {
  if (!recording_at_) return {nullptr, static_cast<int>(position)};
  return {recorded_position_, static_cast<int>(position - *recording_at_)};
}

void CudaBackend::repeat(std::unique_ptr<RecordedOperations>& record,
                         std::optional<std::int64_t> position,
                         const std::function<void()>& operations) {
  BITNET_CHECK(!position || (*position >= 0 && *position <= std::numeric_limits<int>::max()),
               "position {}", *position);
  if (record == nullptr) {  // the first time allocates and probes, which a recording must not
    operations();
    record = std::make_unique<RecordedGraph>();
    return;
  }
  auto& graph = static_cast<RecordedGraph&>(*record);
  if (graph.too_large) return operations();
  if (position) {
    const int now = static_cast<int>(*position);
    staging_->copy(&now, sizeof(now), recorded_position_);
  }
  if (graph.executable == nullptr || graph.workspace_generation != workspace_.generation()) {
    graph.clear();
    workspace_.settle();
    graph.workspace_generation = workspace_.generation();
    graph.executable = capture(position, operations);
    graph.too_large = graph.executable == nullptr;
    if (graph.too_large) return operations();
  }
  check(cudaGraphLaunch(graph.executable, stream_), "launching recorded operations");
}

cudaGraphExec_t CudaBackend::capture(std::optional<std::int64_t> position,
                                     const std::function<void()>& operations) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording operations");
  recording_at_ = position;
  try {
    operations();
  } catch (...) {
    recording_at_.reset();
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  recording_at_.reset();
  check(cudaStreamEndCapture(stream_, &graph), "recording operations");
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  if (error == cudaSuccess) error = cudaGraphUpload(executable, stream_);
  // On a device that is almost full; issued one by one, the operations need no more memory.
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // forget it
    if (executable != nullptr) cudaGraphExecDestroy(executable);
    return nullptr;
  }
  check(error, "preparing recorded operations");
  return executable;
}

}  // namespace bitnet::cuda
