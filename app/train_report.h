// SPDX-License-Identifier: MIT
// What bitnet train says before and after a run.
#pragma once

#include <string>

#include "app/train_console.h"
#include "core/checkpoint/training_state.h"
#include "core/data/text_data.h"
#include "core/train/trainer.h"

namespace bitnet {

// Throws DeviceError for a run that does not fit: better so than by the system's out-of-memory
// killer an hour later.
void check_memory(const Backend& backend, const MemoryPlan& plan);

std::string describe_memory(const MemoryPlan& plan);

// Of a dry run, to stdout: as text, or as one JSON object.
void print_plan(const Backend& backend, const RunConfig& config, const MemoryPlan& memory,
                const TextData& data, bool json);

// A line to the user and the log; with `json` also one object to stdout.
void print_summary(const RunFolder& folder, const TrainSummary& summary, TrainConsole& console,
                   bool json);

// Lines on what makes a resumed run another one than a run that was never stopped: keys of the config
// that have changed, a schedule that differs in the updates done, or another device than that of the
// checkpoint.
void warn_of_changes(const RunConfig& before, const RunConfig& now, const TrainingState& checkpoint,
                     const Backend& backend, TrainConsole& console);

}  // namespace bitnet
