// SPDX-License-Identifier: MIT
// The weights of any model that can be read, as the latent ones that training goes on with.
#pragma once

#include "core/convert/model_views.h"

namespace bitnet {

// Fills all parameters of `model`, whose tensors must be those of the reader's (check_initial_model()):
// floats as they are, latent or of a float model; of packed projections the weights that are
// quantised to the same codes and scales: scale · code, for b158 with absmean divided by the share of
// codes that are not 0. Codes are not made yet (Transformer::refresh_quantized()). One tensor at a time
// passes through the host's memory.
void read_latent_weights(const SharedReader& reader, Transformer& model);

}  // namespace bitnet
