// SPDX-License-Identifier: MIT
// A CUDA thread keeps the host thread until it blocks or ends; then it hands over to the next ready
// one directly, and to the host's own stack when there is none. A finished thread's fiber takes the
// next fresh thread without any switch.
#include "tests/cuda_emulator/scheduler.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/faults.h"
#include "tests/cuda_emulator/sanitizers.h"

// The kernel's built-in variables. They are const there (device.h), and never change while one CUDA
// thread looks at them; here they are set at each switch.
uint3 emulated_thread_index asm("threadIdx");
uint3 emulated_block_index asm("blockIdx");
dim3 emulated_block_shape asm("blockDim");
dim3 emulated_grid_shape asm("gridDim");

namespace bitnet::emulator {
namespace {

std::string failure;
thread_local Scheduler* executing = nullptr;  // plain, so that a signal handler may read it

std::string text(Site site) {
  const char* slash = std::strrchr(site.file_name(), '/');
  return std::string(slash == nullptr ? site.file_name() : slash + 1) + ":" +
         std::to_string(site.line());
}

bool same(Site a, Site b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

std::string text(const char* name, uint3 at) {
  return std::string(name) + " (" + std::to_string(at.x) + "," + std::to_string(at.y) + "," +
         std::to_string(at.z) + ")";
}

}  // namespace

const std::string& last_failure() { return failure; }
void forget_failure() { failure.clear(); }
void set_failure(const char* message) { failure = message; }

Scheduler& Scheduler::current() {
  thread_local Scheduler scheduler;
  return scheduler;
}

Scheduler::~Scheduler() { executing = nullptr; }

Fiber* executing_fiber() { return executing == nullptr ? nullptr : executing->running_fiber(); }

std::string Scheduler::place() const {
  return text("block", emulated_block_index) + ", " + text("thread", emulated_thread_index);
}

void Scheduler::record(cudaError_t error, const std::string& message) {
  if (error_ == cudaSuccess) {
    error_ = error;
    failure = message;
  }
}

// --- grids and blocks ---

// The first block of a launch that may overlap its predecessors begins with device memory closed.
cudaError_t Scheduler::run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, bool shared_opt_in,
                                Overlap overlap, const std::function<void()>& body) {
  const UnwatchedScope unwatched;
  catch_faults_of_this_thread();
  executing = this;
  ++statistics().launches;
  body_ = &body;
  overlap_ = overlap;
  block_shape_ = block;
  error_ = cudaSuccess;
  emulated_block_shape = block;
  emulated_grid_shape = grid;
  const Schedule schedule = config().schedule;
  random_ = RandomBits(config().seed);
  release_order(&start_token_);

  std::vector<unsigned> order(std::size_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0U);
  if (schedule == Schedule::reverse) {
    std::reverse(order.begin(), order.end());
  } else if (schedule != Schedule::forward) {
    std::shuffle(order.begin(), order.end(), random_);
  }
  if (overlap == Overlap::allowed) close_device_memory();
  for (const unsigned b : order) {
    shared_.begin_block(shared_bytes, shared_opt_in, config().poison);
    run_block({b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y});
    if (error_ != cudaSuccess) break;
  }
  reopen_device_memory();
  acquire_order(&end_token_);
  return error_;
}

void Scheduler::begin_block(int threads) {
  threads_.resize(static_cast<std::size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    CudaThread& t = threads_[static_cast<std::size_t>(i)];
    const unsigned n = static_cast<unsigned>(i);
    t.number = i;
    t.index = {n % block_shape_.x, n / block_shape_.x % block_shape_.y,
               n / block_shape_.x / block_shape_.y};
    t.state = ThreadState::fresh;
    t.waited = false;
    t.fiber = nullptr;
  }
  warps_.resize((static_cast<std::size_t>(threads) + 31) / 32);
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    const std::size_t lanes = std::min<std::size_t>(32, static_cast<std::size_t>(threads) - w * 32);
    warps_[w].existing = lanes == 32 ? ~0U : (1U << lanes) - 1;
    warps_[w].exited = 0;
    warps_[w].pending.clear();
  }
  done_ = at_barrier_ = 0;
  ready_.begin_block(threads, config().schedule, random_);
  statistics().threads += static_cast<std::uint64_t>(threads);
}

void Scheduler::run_block(uint3 block_index) {
  emulated_block_index = block_index;
  begin_block(static_cast<int>(block_shape_.x * block_shape_.y * block_shape_.z));
  if (activate_next()) {
    ++statistics().switches;
    Fiber::switch_to(host_, *running_->fiber);
  }
  if (error_ == cudaSuccess && done_ < static_cast<int>(threads_.size())) describe_deadlock();
  running_ = nullptr;
  for (CudaThread& t : threads_) {
    if (t.fiber != nullptr) recycle(t);
  }
  if (error_ == cudaSuccess && !shared_.red_zones_intact()) {
    record(cudaErrorLaunchFailure,
           "a write outside the shared variables, " + text("block", block_index));
  }
}

// What is left of a thread that a failure stopped. To ThreadSanitizer its fiber is still inside an
// unwatched scope, so that one is never used again.
void Scheduler::recycle(CudaThread& t) {
  t.open_copies.clear();
  t.copy_groups.clear();
  if constexpr (kThreadSanitizer) {
    retired_.push_back(std::move(fibers_[static_cast<std::size_t>(t.number)]));
  } else {
    t.fiber->restart();
    idle_.push_back(t.fiber);
  }
  t.fiber = nullptr;
}

void Scheduler::describe_deadlock() {
  const auto waiting = std::find_if(threads_.begin(), threads_.end(), [](const CudaThread& t) {
    return t.state == ThreadState::in_warp;
  });
  const CudaThread& t =
      waiting != threads_.end()
          ? *waiting
          : *std::find_if(threads_.begin(), threads_.end(),
                          [](const CudaThread& x) { return x.state == ThreadState::at_barrier; });
  record(cudaErrorLaunchFailure,
         "deadlock: " + std::to_string(threads_.size() - static_cast<std::size_t>(done_)) +
             " threads wait; " + text("thread", t.index) + " for " + t.waits_for + " at " +
             text(t.waits_at) + ", " + text("block", emulated_block_index));
}

// --- threads ---

Fiber* Scheduler::fiber_for(int thread) {
  const UnwatchedScope unwatched;
  if constexpr (kThreadSanitizer) {  // each CUDA thread keeps an identity of its own
    const std::size_t index = static_cast<std::size_t>(thread);
    if (fibers_.size() <= index) fibers_.resize(index + 1);
    if (fibers_[index] == nullptr) fibers_[index] = std::make_unique<Fiber>(&thread_entry);
    return fibers_[index].get();
  }
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(&Scheduler::thread_entry));
    return fibers_.back().get();
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

bool Scheduler::activate_next() {
  if (ready_.empty() || error_ != cudaSuccess) return false;
  running_ = &threads_[static_cast<std::size_t>(ready_.pop())];
  if (running_->state == ThreadState::fresh) running_->fiber = fiber_for(running_->number);
  running_->state = ThreadState::ready;
  emulated_thread_index = running_->index;
  return true;
}

void Scheduler::thread_entry() { current().run_threads(); }

// The life of a fiber: one CUDA thread after the other.
void Scheduler::run_threads() {
  for (;;) {
    Fiber* fiber = running_->fiber;
    acquire_order(&start_token_);
    (*body_)();
    release_order(&end_token_);
    finish_thread();
    const bool more = activate_next();
    if (more && running_->fiber == fiber) continue;
    ++statistics().switches;
    Fiber::switch_to(*fiber, more ? *running_->fiber : host_);
  }
}

void Scheduler::finish_thread() {
  const UnwatchedScope unwatched;
  CudaThread& t = *running_;
  const auto unfinished = [](const auto& group) { return !group.empty(); };
  if (!t.open_copies.empty() ||
      std::any_of(t.copy_groups.begin(), t.copy_groups.end(), unfinished)) {
    fail(Site(), "the thread ended with cp.async copies that nothing waited for");
  }
  t.copy_groups.clear();
  if (overlap_ == Overlap::allowed && !t.waited) {
    fail(Site(), "a thread of an overlapping launch ended and had not waited for its predecessors");
  }
  t.state = ThreadState::done;
  warps_[static_cast<std::size_t>(t.number) / 32].exited |= 1U << (t.number % 32);
  ++done_;
  if constexpr (!kThreadSanitizer) idle_.push_back(t.fiber);
  t.fiber = nullptr;
}

void Scheduler::to_host() {
  Fiber* fiber = running_->fiber;
  ++statistics().switches;
  Fiber::switch_to(*fiber, host_);
}

// Gives up the host thread; returns when this CUDA thread is chosen again.
void Scheduler::yield() {
  CudaThread* self = running_;
  release_order(&end_token_);  // in case this is the end, by another thread's failure
  if (!activate_next()) return to_host();
  if (running_ == self) return;
  ++statistics().switches;
  Fiber::switch_to(*self->fiber, *running_->fiber);
}

void Scheduler::block_running(ThreadState state, const char* what, Site site) {
  running_->state = state;
  running_->waits_for = what;
  running_->waits_at = site;
  yield();
}

void Scheduler::wake(CudaThread& t) {
  t.state = ThreadState::ready;
  ready_.push(t.number);
}

void Scheduler::abandon(cudaError_t error, const char* message) {
  record(error, std::string(message) + ", " + place());
  release_order(&end_token_);
  to_host();
  std::abort();  // the host restarts the fiber instead
}

void Scheduler::fail(Site site, const char* format, ...) {
  char message[400];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (site.line() != 0) {  // nothing on this stack may own memory: it is abandoned
    const std::size_t length = std::strlen(message);
    const char* slash = std::strrchr(site.file_name(), '/');
    std::snprintf(message + length, sizeof message - length, " at %s:%u",
                  slash == nullptr ? site.file_name() : slash + 1,
                  static_cast<unsigned>(site.line()));
  }
  abandon(cudaErrorLaunchFailure, message);
}

// --- barriers and collectives ---

void Scheduler::barrier(Site site) {
  const UnwatchedScope unwatched;
  const int threads = static_cast<int>(threads_.size());
  if (done_ > 0) fail(site, "__syncthreads after %d threads of the block returned", done_);
  if (at_barrier_ > 0 && !same(site, barrier_site_)) {
    fail(site, "divergent barrier: other threads wait in line %u, this one",
         static_cast<unsigned>(barrier_site_.line()));
  }
  barrier_site_ = site;
  char* token = &barrier_tokens_[barrier_parity_];
  release_order(token);
  if (++at_barrier_ == threads) {
    at_barrier_ = 0;
    barrier_parity_ ^= 1U;
    // The last thread has no right to go first: it queues with the others.
    for (int i = 0; i < threads; ++i) {
      wake(threads_[static_cast<std::size_t>(ready_.reversed() ? threads - 1 - i : i)]);
    }
    yield();
  } else {
    block_running(ThreadState::at_barrier, "__syncthreads", site);
  }
  acquire_order(token);
}

WarpOp& Scheduler::join_collective(Warp& warp, unsigned mask, const char* kind, CollectiveBody body,
                                   Site site) {
  const unsigned lane = 1U << (running_->number % 32);
  if ((mask & lane) == 0)
    fail(site, "%s: the calling lane is not in its own mask %08x", kind, mask);
  if ((mask & ~warp.existing) != 0) {
    fail(site, "%s: the mask %08x names lanes that the block does not have", kind, mask);
  }
  if ((mask & warp.exited) != 0) {
    fail(site, "%s: the mask %08x names lanes that have returned (%08x)", kind, mask, warp.exited);
  }
  for (WarpOp& op : warp.pending) {
    if ((op.mask & mask) == 0) continue;
    if (op.mask != mask) {
      fail(site, "%s: masks %08x and %08x of one warp overlap", kind, op.mask, mask);
    }
    if (op.kind != kind && std::strcmp(op.kind, kind) != 0) {
      fail(site, "lanes of one warp disagree: %s meets %s", kind, op.kind);
    }
    if (!same(op.site, site)) {
      fail(site, "lanes of one warp disagree: %s in line %u meets the one", kind,
           static_cast<unsigned>(op.site.line()));
    }
    return op;
  }
  WarpOp& op = warp.pending.emplace_back();
  op.mask = mask;
  op.kind = kind;
  op.site = site;
  op.body = body;
  op.token = &warp.tokens[warp.next_token++ % 64];
  return op;
}

void Scheduler::collective(unsigned mask, const char* kind, void* lane_data, CollectiveBody body,
                           Site site) {
  const UnwatchedScope unwatched;
  const int number = running_->number, lane = number % 32;
  Warp& warp = warps_[static_cast<std::size_t>(number) / 32];
  WarpOp& op = join_collective(warp, mask, kind, body, site);
  op.arrived |= 1U << lane;
  op.lane_data[lane] = lane_data;
  char* token = op.token;
  release_order(token);
  if (op.arrived != mask) {
    block_running(ThreadState::in_warp, kind, site);
    acquire_order(token);
    return;
  }
  acquire_order(token);
  if (body != nullptr) {
    const WatchedScope watched;
    body(op.lane_data, mask);
  }
  release_order(token);
  warp.pending.erase(warp.pending.begin() + (&op - warp.pending.data()));
  CudaThread* first = &threads_[static_cast<std::size_t>(number - lane)];
  for (int i = 0; i < 32; ++i) {
    const int other = ready_.reversed() ? 31 - i : i;
    if ((mask >> other & 1U) != 0) wake(first[other]);
  }
  yield();
  acquire_order(token);
}

// --- the interface of simt.h ---

void kernel_failure(Site site, const char* format, ...) {
  char message[300];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  Scheduler::current().fail(site, "%s", message);
}

int lane_index() { return Scheduler::current().thread().number % 32; }
void block_barrier(Site site) { Scheduler::current().barrier(site); }

void wait_for_predecessors() {
  const UnwatchedScope unwatched;
  Scheduler::current().thread().waited = true;
  reopen_device_memory();
}

void prefetch_to_l2(const void* from, std::size_t bytes, Site site) {
  const UnwatchedScope unwatched;
  if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0 || bytes % 16 != 0 || bytes == 0) {
    kernel_failure(site, "a prefetch of %zu bytes: address and number must be multiples of 16",
                   bytes);
  }
  if (!device_memory_holds(from, bytes)) {
    kernel_failure(site, "a prefetch of %zu bytes that are not device memory", bytes);
  }
}

void warp_collective(unsigned mask, const char* kind, void* lane_data, CollectiveBody body,
                     Site site) {
  Scheduler::current().collective(mask, kind, lane_data, body, site);
}

cudaError_t run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, bool shared_opt_in,
                     Overlap overlap, const std::function<void()>& body) {
  return Scheduler::current().run_grid(grid, block, shared_bytes, shared_opt_in, overlap, body);
}

}  // namespace bitnet::emulator
