// SPDX-License-Identifier: MIT
// Models of any shape with weights that nobody trained, made in memory: for measuring speed, which
// does not depend on the values as long as they are ordinary ones.
#pragma once

#include <memory>

#include "core/base/parallel.h"
#include "core/model/transformer.h"

namespace bitnet {

// A quantised model comes packed, as from a file whose floats are bf16 (no fp32 projections are
// ever made), a float model latent. Codes are random, half of the ternary ones 0; scales are
// 1 / sqrt(K), which keeps the activations' size; other weights are uniform with the deviation of
// the config; gains are 1. A pure function of the config.
std::unique_ptr<Transformer> make_synthetic_model(Backend& backend, const ModelConfig& config,
                                                  const ThreadTeam& team);

}  // namespace bitnet
