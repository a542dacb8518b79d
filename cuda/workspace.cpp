// SPDX-License-Identifier: MIT
#include "cuda/workspace.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "cuda/launch_check.h"

namespace bitnet::cuda {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kLeastChunk = std::size_t{1} << 20;

}  // namespace

Workspace::~Workspace() {
  for (const Chunk& chunk : chunks_) cudaFree(chunk.data);
}

Workspace::Frame::Frame(Workspace& workspace)
    : workspace_(workspace),
      chunk_(workspace.chunk_),
      used_(workspace.used_),
      taken_(workspace.taken_) {
  if (workspace_.frames_ == 0) workspace_.settle();
  ++workspace_.frames_;
}

Workspace::Frame::~Frame() {
  --workspace_.frames_;
  workspace_.taken_ = taken_;
  workspace_.chunk_ = chunk_;
  workspace_.used_ = used_;
}

void* Workspace::take(std::size_t bytes) {
  bytes = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].bytes) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    Chunk chunk{nullptr, std::max(bytes, kLeastChunk)};
    check(cudaMalloc(reinterpret_cast<void**>(&chunk.data), chunk.bytes),
          "allocating the workspace");
    chunks_.push_back(chunk);
  }
  void* const memory = chunks_[chunk_].data + used_;
  used_ += bytes;
  taken_ += bytes;
  most_ = std::max(most_, taken_);
  return memory;
}

// Several chunks become one that holds what the largest operation took. (cudaFree waits for the
// kernels that use them.)
void Workspace::settle() {
  if (chunks_.size() < 2) return;
  ++generation_;
  for (const Chunk& chunk : std::exchange(chunks_, {}))
    check(cudaFree(chunk.data), "freeing the workspace");
  Chunk chunk{nullptr, most_};
  check(cudaMalloc(reinterpret_cast<void**>(&chunk.data), chunk.bytes), "allocating the workspace");
  chunks_.push_back(chunk);
}

}  // namespace bitnet::cuda
