// SPDX-License-Identifier: MIT
// `bitnet inspect` of models in other formats than ours.
#pragma once

#include "core/checkpoint/inspect.h"
#include "core/convert/model_reader.h"

namespace bitnet {

// Every tensor as the reader hands it out, under our names; dtypes are those that we would store.
// Memory is bounded by the largest tensor.
InspectReport inspect_model(const ModelReader& reader);

}  // namespace bitnet
