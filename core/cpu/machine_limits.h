// SPDX-License-Identifier: MIT
// What this machine gives at most to one instruction set and a number of threads: bytes read a
// second, fp32 and int8 operations a second. Everything else is judged as a fraction of it.
#pragma once

#include <cstdint>
#include <string>

#include "core/base/limit_measurement.h"
#include "core/base/parallel.h"

namespace bitnet {

namespace cpu {
struct LimitKernels;  // limit_kernels.h
}

// How long a measurement takes: repeats x (about) seconds, for each kernel that is tried.
struct LimitEffort {
  int repeats = 7;
  double seconds = 0.05;
  // Of the buffer that stands for the memory: several times any cache that a process has to itself.
  std::int64_t memory_bytes = std::int64_t{2} << 30;
};

class MachineLimits {
 public:
  // threads and isa as in make_cpu_backend().
  explicit MachineLimits(int threads = 0, const std::string& isa = "",
                         const LimitEffort& effort = {});

  const std::string& isa() const { return isa_; }
  int threads() const { return team_.size(); }

  // Bytes a second of threads that together read a large buffer once, in one forward stream each.
  LimitMeasurement memory_read() const;
  // The same of a buffer of `bytes` that is read over and over, each thread its own part of it:
  // what the cache gives that holds so much.
  LimitMeasurement cache_read(std::int64_t bytes) const;
  // cache_read() of half of l2_bytes().
  LimitMeasurement l2_read() const { return cache_read(l2_bytes() / 2); }
  // Of the second-level caches that the threads use together. Threads that are more than these
  // share them.
  std::int64_t l2_bytes() const;

  // Operations a second; a multiplication and an addition are two.
  LimitMeasurement fp32_fma() const;
  LimitMeasurement int8_dot() const;

 private:
  ThreadTeam team_;
  std::string isa_;
  LimitEffort effort_;
  const cpu::LimitKernels* kernels_;
};

}  // namespace bitnet
