// SPDX-License-Identifier: MIT
// The model's parameters: one flat list, in the order of list_tensors().
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "core/backend/backend.h"
#include "core/model/model_config.h"

namespace bitnet {

enum class WeightForm : std::uint8_t {
  latent,  // every parameter in fp32; quantised projections also get codes and scales from
           // refresh_quantized()
  packed,  // quantised projections hold only codes and scales
};

struct Parameter {
  TensorSpec spec;
  Tensor value;         // f32, spec.shape; empty for a projection in packed form
  Tensor gradient;      // like value; empty until create_gradients()
  Tensor packed;        // u8 [N / 4, K]: quantised projections only
  Tensor weight_scale;  // [1] or [N, K / group_size]: quantised projections only
  Tensor operand;  // f32 [N, K]: the float operand of a product that is not (wholly) quantised;
                   // made on demand
};

class Parameters {
 public:
  Parameters(Backend& backend, const ModelConfig& config, WeightForm form);

  WeightForm form() const { return form_; }
  std::span<Parameter> all() { return parameters_; }
  std::span<const Parameter> all() const { return parameters_; }
  // nullptr when there is none of that name.
  Parameter* find(std::string_view name);
  // Throws ContractError when there is none of that name.
  Parameter& at(std::string_view name);

  void create_gradients(Backend& backend);  // a no-op when they exist
  void zero_gradients(Backend& backend);
  std::int64_t count() const;  // number of weights

 private:
  WeightForm form_;
  std::vector<Parameter> parameters_;
};

}  // namespace bitnet
