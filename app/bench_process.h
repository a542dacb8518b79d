// SPDX-License-Identifier: MIT
// `bitnet bench load`: loading is measured in fresh processes, whose memory is that of the loaded
// model alone.
#pragma once

#include <memory>
#include <string>

#include "app/commands.h"
#include "core/bench/workloads.h"

namespace bitnet {

// Writes `model` into a temporary folder, destroys it, and runs this program with
// --load-once FOLDER as often as `effort` says, on the device of `model`.
BenchRow measure_load(std::unique_ptr<Transformer> model, const std::string& head,
                      const std::string& kv_cache, int threads, const MachineRates& rates,
                      const BenchEffort& effort);

// What such a process does: loads, and prints for measure_load() when it was done and what it took.
void run_load_once(AppContext& context, const std::string& folder, const std::string& head,
                   const std::string& kv_cache);

}  // namespace bitnet
