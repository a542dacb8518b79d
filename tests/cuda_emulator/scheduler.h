// SPDX-License-Identifier: MIT
// Executes one block: its CUDA threads on fibers, its barriers and its warp collectives.
#pragma once

#include <vector_types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "tests/cuda_emulator/fiber.h"
#include "tests/cuda_emulator/ready_queue.h"
#include "tests/cuda_emulator/shared_memory.h"
#include "tests/cuda_emulator/simt.h"

namespace bitnet::emulator {

enum class ThreadState : std::uint8_t { fresh, ready, at_barrier, in_warp, done };

struct AsyncCopy {
  void* shared;
  const void* global;
  bool valid;
};

struct CudaThread {
  int number = 0;  // in the block
  uint3 index{};
  ThreadState state = ThreadState::fresh;
  bool waited = false;  // for the kernel's predecessors
  Fiber* fiber = nullptr;
  const char* waits_for = "";
  Site waits_at;
  std::vector<AsyncCopy> open_copies;               // not yet committed
  std::vector<std::vector<AsyncCopy>> copy_groups;  // committed, oldest first
};

// A collective that some lanes have reached.
struct WarpOp {
  unsigned mask = 0, arrived = 0;
  const char* kind = "";
  Site site;
  CollectiveBody body = nullptr;
  void* lane_data[32] = {};
  char* token = nullptr;
};

struct Warp {
  unsigned existing = 0, exited = 0;  // lanes
  std::vector<WarpOp> pending;        // of disjoint masks
  char tokens[64] =
      {};  // ThreadSanitizer's orderings, one a collective, reused when long forgotten
  unsigned next_token = 0;
};

// One per host thread that executes grids.
class Scheduler {
 public:
  static Scheduler& current();
  ~Scheduler();

  cudaError_t run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, bool shared_opt_in,
                       Overlap overlap, const std::function<void()>& body);

  // --- on the fiber of a CUDA thread ---
  CudaThread& thread() { return *running_; }
  void barrier(Site site);
  void collective(unsigned mask, const char* kind, void* lane_data, CollectiveBody body, Site site);
  [[noreturn]] void abandon(cudaError_t error, const char* message);
  [[noreturn]] void fail(Site site, const char* format, ...) __attribute__((format(printf, 3, 4)));

  Fiber* running_fiber() const { return running_ == nullptr ? nullptr : running_->fiber; }
  std::string place() const;  // "block (0,0,0), thread (1,0,0)"
  SharedMemory& shared() { return shared_; }
  RandomBits& random() { return random_; }

 private:
  static void thread_entry();
  void run_threads();
  void run_block(uint3 block_index);
  void begin_block(int threads);
  void finish_thread();
  bool activate_next();  // false: none is ready
  void block_running(ThreadState state, const char* what, Site site);
  void yield();
  void to_host();
  void wake(CudaThread& thread);
  WarpOp& join_collective(Warp& warp, unsigned mask, const char* kind, CollectiveBody body,
                          Site site);
  void describe_deadlock();
  void record(cudaError_t error, const std::string& message);
  Fiber* fiber_for(int thread);
  void recycle(CudaThread& thread);

  Fiber host_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  std::vector<std::unique_ptr<Fiber>> retired_;
  std::vector<CudaThread> threads_;
  std::vector<Warp> warps_;
  ReadyQueue ready_;
  SharedMemory shared_;
  RandomBits random_{1};
  CudaThread* running_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  Overlap overlap_ = Overlap::never;
  dim3 block_shape_;
  int done_ = 0;
  int at_barrier_ = 0;
  Site barrier_site_;
  unsigned barrier_parity_ = 0;
  // A fast thread's next arrival must not order the slow threads' last one: two tokens in turn.
  char barrier_tokens_[2] = {};
  char start_token_ = 0, end_token_ = 0;
  cudaError_t error_ = cudaSuccess;
};

// The fiber of the CUDA thread that this host thread executes, or null. For signal handlers.
Fiber* executing_fiber();

}  // namespace bitnet::emulator
