// SPDX-License-Identifier: MIT
// Streams, events and graphs of the emulated runtime: queues of work that runs when something waits
// for it, and exactly as much of it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace bitnet::emulator {

using Work = std::function<void()>;
struct Stream;

// "The first `count` operations of `stream`."
struct Prefix {
  std::shared_ptr<Stream> stream;
  std::uint64_t count = 0;
};

struct Operation {
  std::vector<Prefix> after;
  Work work;
};

// Nodes in the order of their capture; `after` are indices of earlier nodes.
struct GraphNode {
  std::vector<int> after;
  Work work;
};

struct Capture {
  std::vector<GraphNode> nodes;
  Stream* origin = nullptr;
  std::vector<Stream*> streams;  // the origin and those that joined by an event
  bool broken = false;           // by a call that is not allowed during a capture
};

struct Stream {
  std::deque<Operation> queue;
  std::uint64_t issued = 0, done = 0;
  bool blocking = true;  // ordered with the legacy default stream
  bool running = false;
  std::shared_ptr<Capture> capture;
  std::vector<int> frontier;  // during a capture: the nodes that the next one comes after
};

// All calls of the emulated runtime hold this lock.
std::recursive_mutex& runtime_mutex();

// The error that every call returns after a kernel failed.
cudaError_t sticky_error();
void set_sticky_error(cudaError_t error);
// Notes an error for cudaGetLastError and returns it.
cudaError_t returned(cudaError_t error);

// Puts work into a stream, or into the graph that it captures.
cudaError_t enqueue(cudaStream_t stream, Work work);
bool is_capturing(cudaStream_t stream);
// Calls such as cudaMalloc break a capture. Not allowed -> the error, allowed -> success.
cudaError_t refuse_during_capture();
cudaError_t finish(cudaStream_t stream);
cudaError_t finish_all();
// New streams, no events, no errors.
void reset_streams();

}  // namespace bitnet::emulator
