// SPDX-License-Identifier: MIT
// What is measured beside the machine's limits: whole updates of a training, the computing of a
// prompt, and the generation of tokens one by one. Each is repeated after a warm-up, and set
// against the time that the machine's limits allow (core/bench/roofline.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/bench/roofline.h"
#include "core/bench/statistics.h"
#include "core/model/transformer.h"
#include "core/train/run_config.h"

namespace bitnet {

struct BenchEffort {
  int repeats = 7;       // of prefill, decode and load; at least so many updates of a training
  double seconds = 0.2;  // a repeat of decode takes so long, and all of train ten times that
};

// One line of the report.
struct BenchRow {
  std::string workload;  // "decode"
  std::string unit;      // "tokens/s"
  Statistics value;
  double limit = 0;                    // in the same unit
  double fraction_of_limit = 0;        // of the median; limit over median where less is better
  std::string bound_by;                // the limit's name: "memory_read", "int8_dot", …
  std::int64_t peak_memory_bytes = 0;  // of the process, while this was measured; 0: not known
  std::vector<std::pair<std::string, double>> details;
};

// Bytes a second of a working set that is larger than the second-level caches and smaller than the
// third-level one is told to be. Called once at most; empty for a device that has no such cache.
using ReadRate = std::function<double(std::int64_t bytes)>;

// Whole updates: forward, backward, clipping, AdamW, new codes; on random bytes, fully quantised
// from the first one. Throws DeviceError when the machine has too little memory.
BenchRow measure_training(Backend& backend, const RunConfig& config, const MachineRates& rates,
                          const BenchEffort& effort);

// Throws UsageError unless the model has a context of that many tokens.
void check_prompt(const ModelConfig& config, std::int64_t tokens);    // measure_prefill()'s
void check_context(const ModelConfig& config, std::int64_t context);  // measure_decode()'s

// One extend() of `tokens` tokens from position 0.
BenchRow measure_prefill(Transformer& model, std::int64_t tokens, const MachineRates& rates,
                         const BenchEffort& effort, DType kv_cache);

// extend() by one token at position `context`, over and over.
BenchRow measure_decode(Transformer& model, std::int64_t context, const MachineRates& rates,
                        const ReadRate& cache_read, const BenchEffort& effort, DType kv_cache);

// Of the output head as it is multiplied: int8 with a scale for each row, or fp32.
std::int64_t head_bytes(const ModelConfig& config, HeadPrecision precision);

// Bytes that one token at position `context` reads.
struct DecodeBytes {
  std::int64_t projections = 0;  // codes and scales, or floats
  std::int64_t head = 0;
  std::int64_t kv_cache = 0;
  std::int64_t total() const { return projections + head + kv_cache; }
};
DecodeBytes decode_bytes(const Transformer& model, DType kv_cache, std::int64_t context);

}  // namespace bitnet
