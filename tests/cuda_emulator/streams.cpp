// SPDX-License-Identifier: MIT
// Lazy mode runs an operation only when a host call, an event or a later operation needs it, so
// that whatever a program forgot to wait for has not happened.
#include "tests/cuda_emulator/streams.h"

#include <algorithm>
#include <map>
#include <utility>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/ready_queue.h"

// An event marks a prefix of its stream, or nodes of the graph being captured.
struct CUevent_st {
  bitnet::emulator::Prefix prefix;
  std::shared_ptr<bitnet::emulator::Capture> capture;
  std::vector<int> nodes;
};

struct CUgraph_st {
  std::vector<bitnet::emulator::GraphNode> nodes;
};

struct CUgraphExec_st {
  std::shared_ptr<const std::vector<bitnet::emulator::GraphNode>> nodes;
  void* memory = nullptr;  // of the device, which the real one takes for the launches' parameters
};

namespace bitnet::emulator {
namespace {

struct RuntimeState {
  std::shared_ptr<Stream> legacy = std::make_shared<Stream>();
  std::map<cudaStream_t, std::shared_ptr<Stream>> streams;  // by handle
  std::set<cudaEvent_t> events;
  std::vector<Stream*> capturing;
  cudaError_t sticky = cudaSuccess, last = cudaSuccess;
  RandomBits random{1};
};

RuntimeState& state() {
  static RuntimeState instance;
  return instance;
}

std::shared_ptr<Stream> find_stream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return state().legacy;
  const auto found = state().streams.find(handle);
  return found == state().streams.end() ? nullptr : found->second;
}

void run_until(Stream& stream, std::uint64_t count);

void run_front(Stream& stream) {
  stream.running = true;
  const Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  for (const Prefix& p : operation.after) run_until(*p.stream, p.count);
  if (operation.work && state().sticky == cudaSuccess) {
    operation.work();
  }
  ++stream.done;
  stream.running = false;
}

// The host's code is not running meanwhile: device memory is opened once for all.
void run_until(Stream& stream, std::uint64_t count) {
  if (stream.running || stream.done >= count) return;
  const DeviceAccess access;
  while (!stream.running && stream.done < count) run_front(stream);
}

void run_all(Stream& stream) { run_until(stream, stream.issued); }

std::vector<std::shared_ptr<Stream>> all_streams() {
  std::vector<std::shared_ptr<Stream>> all{state().legacy};
  for (const auto& [handle, stream] : state().streams) all.push_back(stream);
  return all;
}

// In random mode some streams may run ahead at any call.
void run_some() {
  const auto all = all_streams();
  for (std::size_t tries = state().random.below(3); tries > 0; --tries) {
    Stream& stream = *all[state().random.below(all.size())];
    if (stream.done < stream.issued) {
      run_until(stream, stream.done + 1 + state().random.below(stream.issued - stream.done));
    }
  }
}

// What an operation of this stream waits for besides its predecessor: the legacy default stream and
// the blocking streams wait for each other.
std::vector<Prefix> legacy_order(const std::shared_ptr<Stream>& stream) {
  std::vector<Prefix> after;
  if (stream == state().legacy) {
    for (const auto& [handle, other] : state().streams) {
      if (other->blocking) after.push_back({other, other->issued});
    }
  } else if (stream->blocking) {
    after.push_back({state().legacy, state().legacy->issued});
  }
  return after;
}

void issue(const std::shared_ptr<Stream>& stream, std::vector<Prefix> after, Work work) {
  stream->queue.push_back({std::move(after), std::move(work)});
  ++stream->issued;
  if (config().streams == StreamMode::eager) run_all(*stream);
  if (config().streams == StreamMode::random) run_some();
}

void add_node(Stream& stream, Work work) {
  Capture& capture = *stream.capture;
  capture.nodes.push_back({stream.frontier, std::move(work)});
  stream.frontier = {static_cast<int>(capture.nodes.size()) - 1};
}

void leave_capture(Capture& capture) {
  auto& capturing = state().capturing;
  const std::shared_ptr<Capture> keep = capture.origin->capture;
  for (Stream* s : keep->streams) {
    capturing.erase(std::remove(capturing.begin(), capturing.end(), s), capturing.end());
    s->frontier.clear();
    s->capture.reset();
  }
  capture.origin = nullptr;
}

void join_capture(Stream& stream, const std::shared_ptr<Capture>& capture) {
  if (stream.capture == capture) return;
  stream.capture = capture;
  stream.frontier.clear();
  capture->streams.push_back(&stream);
  state().capturing.push_back(&stream);
}

// Every node must be an ancestor of the origin's frontier: no stream was forked and forgotten.
bool joined(const Capture& capture) {
  std::vector<bool> reached(capture.nodes.size());
  std::vector<int> todo = capture.origin->frontier;
  while (!todo.empty()) {
    const auto node = static_cast<std::size_t>(todo.back());
    todo.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    todo.insert(todo.end(), capture.nodes[node].after.begin(), capture.nodes[node].after.end());
  }
  return std::all_of(reached.begin(), reached.end(), [](bool r) { return r; });
}

// Any order that the edges allow is right; the schedule picks one.
void replay(const std::vector<GraphNode>& nodes) {
  std::vector<bool> done(nodes.size());
  std::vector<std::size_t> ready;
  RandomBits random(config().seed);
  for (std::size_t count = 0; count < nodes.size(); ++count) {
    ready.clear();
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      const auto finished = [&](int before) {
        return bool{done[static_cast<std::size_t>(before)]};
      };
      if (!done[n] && std::all_of(nodes[n].after.begin(), nodes[n].after.end(), finished)) {
        ready.push_back(n);
      }
    }
    std::size_t pick = 0;
    if (config().schedule == Schedule::reverse) pick = ready.size() - 1;
    if (config().schedule == Schedule::random || config().schedule == Schedule::unfair) {
      pick = random.below(ready.size());
    }
    if (state().sticky == cudaSuccess && nodes[ready[pick]].work) nodes[ready[pick]].work();
    done[ready[pick]] = true;
  }
}

}  // namespace

std::recursive_mutex& runtime_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

cudaError_t sticky_error() { return state().sticky; }
void set_sticky_error(cudaError_t error) { state().sticky = error; }

cudaError_t returned(cudaError_t error) {
  if (error != cudaSuccess) state().last = error;
  return error;
}

cudaError_t enqueue(cudaStream_t handle, Work work) {
  if (state().sticky != cudaSuccess) return returned(state().sticky);
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr) return returned(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) {
    add_node(*stream, std::move(work));
    return cudaSuccess;
  }
  std::vector<Prefix> after = legacy_order(stream);
  if (stream == state().legacy) {
    // The default stream would have to wait for a stream whose work is not running.
    for (Stream* s : state().capturing) {
      if (s->blocking) {
        s->capture->broken = true;
        return returned(cudaErrorStreamCaptureImplicit);
      }
    }
  }
  issue(stream, std::move(after), std::move(work));
  return cudaSuccess;
}

bool is_capturing(cudaStream_t handle) {
  const std::shared_ptr<Stream> stream = find_stream(handle);
  return stream != nullptr && stream->capture != nullptr;
}

cudaError_t refuse_during_capture() {
  if (state().capturing.empty()) return cudaSuccess;
  for (Stream* s : state().capturing) s->capture->broken = true;
  return returned(cudaErrorStreamCaptureUnsupported);
}

cudaError_t finish(cudaStream_t handle) {
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr) return returned(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) return refuse_during_capture();
  if (stream == state().legacy) {
    for (const Prefix& p : legacy_order(stream)) run_until(*p.stream, p.count);
  }
  run_all(*stream);
  return returned(state().sticky);
}

cudaError_t finish_all() {
  if (const cudaError_t refused = refuse_during_capture(); refused != cudaSuccess) return refused;
  for (const auto& stream : all_streams()) run_all(*stream);
  return returned(state().sticky);
}

void reset_streams() {
  for (const cudaEvent_t event : state().events) delete event;
  for (const auto& [handle, stream] : state().streams) delete reinterpret_cast<char*>(handle);
  state() = RuntimeState();
  state().random = RandomBits(config().seed);
}

}  // namespace bitnet::emulator

using namespace bitnet::emulator;

namespace {
using Lock = std::lock_guard<std::recursive_mutex>;
}  // namespace

extern "C" {

// --- errors ---

cudaError_t cudaGetLastError() {
  const Lock lock(runtime_mutex());
  const cudaError_t last = std::exchange(state().last, cudaSuccess);
  return state().sticky != cudaSuccess ? state().sticky : last;
}

cudaError_t cudaPeekAtLastError() {
  const Lock lock(runtime_mutex());
  return state().sticky != cudaSuccess ? state().sticky : state().last;
}

// --- streams ---

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  const Lock lock(runtime_mutex());
  if (state().sticky != cudaSuccess) return returned(state().sticky);
  auto stream = std::make_shared<Stream>();
  stream->blocking = (flags & cudaStreamNonBlocking) == 0;
  *handle = reinterpret_cast<cudaStream_t>(new char);  // unique while it lives
  state().streams[*handle] = std::move(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* handle) { return cudaStreamCreateWithFlags(handle, 0); }

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int) {
  return cudaStreamCreateWithFlags(handle, flags);
}

// The work that was issued is still done, as on the device.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const Lock lock(runtime_mutex());
  const auto found = state().streams.find(handle);
  if (found == state().streams.end()) return returned(cudaErrorInvalidResourceHandle);
  if (found->second->capture != nullptr) return refuse_during_capture();
  run_all(*found->second);
  state().streams.erase(found);
  delete reinterpret_cast<char*>(handle);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const Lock lock(runtime_mutex());
  return finish(handle);
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const Lock lock(runtime_mutex());
  if (is_capturing(handle)) return refuse_during_capture();
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr) return returned(cudaErrorInvalidResourceHandle);
  if (state().sticky != cudaSuccess) return returned(state().sticky);
  if (stream->done < stream->issued) run_until(*stream, stream->done + 1);  // polling ends
  return stream->done < stream->issued ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(runtime_mutex());
  return finish_all();
}

// --- events ---

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const Lock lock(runtime_mutex());
  if (state().sticky != cudaSuccess) return returned(state().sticky);
  *event = new CUevent_st;
  state().events.insert(*event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(runtime_mutex());
  if (state().events.erase(event) == 0) return returned(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  const Lock lock(runtime_mutex());
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr || state().events.count(event) == 0) {
    return returned(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) {
    event->capture = stream->capture;
    event->nodes = stream->frontier;
    event->prefix = {};
    return cudaSuccess;
  }
  const cudaError_t error = enqueue(handle, nullptr);
  event->capture.reset();
  event->prefix = {stream, stream->issued};
  return error;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  const Lock lock(runtime_mutex());
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr || state().events.count(event) == 0) {
    return returned(cudaErrorInvalidResourceHandle);
  }
  if (event->capture != nullptr) {
    if (event->capture->origin == nullptr) {
      return returned(cudaErrorInvalidValue);  // recorded in a capture that has ended
    }
    join_capture(*stream, event->capture);
    stream->frontier.insert(stream->frontier.end(), event->nodes.begin(), event->nodes.end());
    return cudaSuccess;
  }
  if (stream->capture != nullptr) {
    stream->capture->broken = true;
    return returned(cudaErrorStreamCaptureIsolation);
  }
  if (event->prefix.stream == nullptr) return cudaSuccess;  // never recorded: no wait
  if (state().sticky != cudaSuccess) return returned(state().sticky);
  std::vector<Prefix> after = legacy_order(stream);
  after.push_back(event->prefix);
  issue(stream, std::move(after), nullptr);
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(runtime_mutex());
  if (state().events.count(event) == 0) return returned(cudaErrorInvalidResourceHandle);
  if (event->capture != nullptr) return refuse_during_capture();
  if (event->prefix.stream != nullptr) run_until(*event->prefix.stream, event->prefix.count);
  return returned(state().sticky);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(runtime_mutex());
  if (state().events.count(event) == 0) return returned(cudaErrorInvalidResourceHandle);
  if (event->capture != nullptr) return refuse_during_capture();
  if (state().sticky != cudaSuccess) return returned(state().sticky);
  const std::shared_ptr<Stream>& stream = event->prefix.stream;
  if (stream == nullptr || stream->done >= event->prefix.count) return cudaSuccess;
  run_until(*stream, stream->done + 1);  // polling ends
  return stream->done >= event->prefix.count ? cudaSuccess : cudaErrorNotReady;
}

// Time is counted in operations of the stream, 1 ms each.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const Lock lock(runtime_mutex());
  for (const cudaEvent_t event : {begin, end}) {
    if (state().events.count(event) == 0 || event->prefix.stream == nullptr) {
      return returned(cudaErrorInvalidResourceHandle);
    }
    if (event->prefix.stream->done < event->prefix.count) return returned(cudaErrorNotReady);
  }
  const bool same = begin->prefix.stream == end->prefix.stream;
  *milliseconds = same ? static_cast<float>(end->prefix.count - begin->prefix.count) : 1.0f;
  return returned(state().sticky);
}

// --- graphs ---

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  const Lock lock(runtime_mutex());
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr) return returned(cudaErrorInvalidResourceHandle);
  if (stream == state().legacy) return returned(cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr) return returned(cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->origin = stream.get();
  join_capture(*stream, capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const Lock lock(runtime_mutex());
  *graph = nullptr;
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr) return returned(cudaErrorInvalidResourceHandle);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture == nullptr) return returned(cudaErrorIllegalState);
  if (capture->origin != stream.get()) return returned(cudaErrorStreamCaptureUnmatched);
  const bool complete = joined(*capture);
  leave_capture(*capture);
  if (capture->broken) return returned(cudaErrorStreamCaptureInvalidated);
  if (!complete) return returned(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{capture->nodes};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Lock lock(runtime_mutex());
  const std::shared_ptr<Stream> stream = find_stream(handle);
  if (stream == nullptr) return returned(cudaErrorInvalidResourceHandle);
  *status = stream->capture == nullptr ? cudaStreamCaptureStatusNone
            : stream->capture->broken  ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  const Lock lock(runtime_mutex());
  *executable = new CUgraphExec_st{std::make_shared<const std::vector<GraphNode>>(graph->nodes)};
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  constexpr std::size_t kNodeBytes = 1024;
  const Lock lock(runtime_mutex());
  if (is_capturing(stream)) return refuse_during_capture();
  if (executable->memory != nullptr) return cudaSuccess;
  executable->memory = allocate_device_memory((executable->nodes->size() + 1) * kNodeBytes);
  return executable->memory == nullptr ? returned(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  if (is_capturing(stream)) return refuse_during_capture();  // child graphs: not supported here
  return enqueue(stream, [nodes = executable->nodes] { replay(*nodes); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Lock lock(runtime_mutex());
  if (executable->memory != nullptr) free_device_memory(executable->memory);
  delete executable;
  return cudaSuccess;
}

}  // extern "C"
