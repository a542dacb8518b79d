// SPDX-License-Identifier: MIT
#include "cuda/stopwatch.h"

#include "cuda/launch_check.h"

namespace bitnet::cuda {
namespace {

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "creating an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

float milliseconds_of(cudaStream_t stream, const char* operation,
                      const std::function<void()>& issue) {
  const Event begin, end;
  check(cudaEventRecord(begin, stream), operation);
  issue();
  check(cudaEventRecord(end, stream), operation);
  check(cudaEventSynchronize(end), operation);
  float time = 0;
  check(cudaEventElapsedTime(&time, begin, end), operation);
  return time;
}

}  // namespace bitnet::cuda
