// SPDX-License-Identifier: MIT
// The shapes that are measured when no config is named; configs/ holds the same as files.
#pragma once

#include "core/train/run_config.h"

namespace bitnet {

// configs/bench_7m.json: prefill, decode and load.
RunConfig bench_inference_config();
// configs/bench_train.json: train.
RunConfig bench_training_config();

}  // namespace bitnet
