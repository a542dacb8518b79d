// SPDX-License-Identifier: MIT
// What `bitnet bench` prints: tables for people, one JSON object for programs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/limit_measurement.h"
#include "core/bench/workloads.h"

namespace bitnet {

struct BenchLimit {
  std::string name;    // "memory_read"
  std::string unit;    // "GB/s"
  std::string kernel;  // what reached it
  Statistics value;
};

// What computes instead of the processor.
struct BenchDevice {
  std::string name, detail;  // of the backend
  std::int64_t memory_bytes = 0, l2_bytes = 0;
};

struct BenchReport {
  std::string isa;
  int threads = 0;
  std::int64_t l2_bytes = 0;   // of all threads
  std::string head, kv_cache;  // of prefill, decode and load: "int8", "fp16"
  std::optional<BenchDevice> device;
  std::vector<BenchLimit> limits;  // of the device; l3_read only where a workload is bound by it
  struct Result {
    std::string config;  // the name of its file without ".json"
    BenchRow row;
  };
  std::vector<Result> results;
  struct Skipped {
    std::string workload, reason;
  };
  std::vector<Skipped> skipped;
};

// `samples` of `name` per second, in units of 10^9.
BenchLimit make_limit(std::string name, std::string unit, const LimitMeasurement& samples);

void print_bench_tables(const BenchReport& report);
void print_bench_json(const BenchReport& report);

}  // namespace bitnet
