// SPDX-License-Identifier: MIT
// What a workload must compute and read at least, and how long that takes at the machine's limits.
//
// Counted are the products of the projections (all seven of a block), which are what the papers
// make cheap; the head and attention are counted apart, so that the reader sees their share. A
// multiplication and an addition are two operations.
#pragma once

#include <cstdint>
#include <string>

#include "core/backend/backend.h"
#include "core/model/model_config.h"

namespace bitnet {

// Of the device that computes, per second: bytes, or operations.
struct MachineRates {
  double memory_read = 0, l2_read = 0, float_dot = 0, int8_dot = 0;
  // Bytes that the host can hand over; 0 where its memory is the device's.
  double copy_to_device = 0;
  std::int64_t l2_bytes = 0;            // of all threads
  const char* float_name = "fp32_fma";  // what float_dot is called: by the kind of the floats
};

// Operations of one kind of number.
struct Operations {
  double int8 = 0, floats = 0;
  double seconds(const MachineRates& rates) const {
    return int8 / rates.int8_dot + floats / rates.float_dot;
  }
  // "int8_dot" or float_name: where more of that time goes.
  std::string bound_by(const MachineRates& rates) const;
};

std::int64_t projection_weights(const ModelConfig& config);

// Of the projections for one token: the forward product, and in training two more for the
// gradients.
Operations forward_operations(const ModelConfig& config);
Operations training_operations(const ModelConfig& config, GradientPrecision backward);

// Float operations of attention and of the head for one of `tokens` tokens that see each other
// causally: on average (tokens + 1) / 2 keys. In training attention's backward pass is five
// products to the two of the forward pass, the head's two to one.
double attention_operations(const ModelConfig& config, std::int64_t tokens, bool training);
double head_operations(const ModelConfig& config, bool training);

}  // namespace bitnet
