// SPDX-License-Identifier: MIT
// A model read as another form of itself. Views own the reader that they read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "core/convert/model_reader.h"

namespace bitnet {

using SharedReader = std::shared_ptr<const ModelReader>;

// The codes and scales of latent quantised weights, by the quantiser of training: the same bits.
SharedReader packed_view(SharedReader latent);

// A model with quantised weights and float activations as the float model that it is: weights =
// scale · code, exactly. `source` is packed, or latent (then by way of packed_view()).
SharedReader dense_view(SharedReader source);

// The pretrained weights of a float model as the latent ones of BitLinears ("b158", "b1"). Throws
// UsageError for a model that is quantised.
SharedReader bit_linear_view(SharedReader floats, const std::string& linear);

// Norms without gains as norms with gains of 1, which is the same function.
SharedReader unit_gains_view(SharedReader source);

enum class Rounding : std::uint8_t { none, bf16, f16 };

// Float tensors and scales rounded as a format will hold them; `rounding` is asked with our name
// of each tensor ("….weight_scale" too).
SharedReader rounded_view(SharedReader source,
                          std::function<Rounding(std::string_view name)> rounding);

}  // namespace bitnet
