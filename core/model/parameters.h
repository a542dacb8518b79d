// SPDX-License-Identifier: MIT
// The model's parameters: one flat list, in the order of list_tensors().
#pragma once

#include <functional>
#include <span>
#include <string>
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
  // Where these tensors lie never changes but for `operand`: recorded passes depend on it.
  // f32, spec.shape; empty for a projection in packed form. The embedding and the head of a packed
  // model may be bf16.
  Tensor value;
  Tensor gradient;      // like value, in memory that all share; empty until create_gradients()
  Tensor packed;        // u8 [N / 4, K]: quantised projections only
  Tensor weight_scale;  // [1] or [N, K / group_size]: quantised projections only
  Tensor flips;         // i32 [1]: codes that the last refresh_quantized() changed; in memory that
                        // all share, empty until create_flips()
  Tensor operand;  // f32 [N, K]: the float operand of a product that is not (wholly) quantised;
                   // made on demand
};

// The name of the scales of a projection: "….q_proj.weight" -> "….q_proj.weight_scale".
std::string weight_scale_name(const std::string& weight_name);

// A tensor that belongs to a model of some form, rather than being made from others.
struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  bool may_be_bf16 = false;
};
// Gives the model a tensor as asked for, perhaps borrowed memory that it will only read.
using TensorSource = std::function<Tensor(const StoredTensor&)>;

class Parameters {
 public:
  // Without a source all parameters are zero.
  Parameters(Backend& backend, const ModelConfig& config, WeightForm form,
             const TensorSource& source = {});

  WeightForm form() const { return form_; }
  std::span<Parameter> all() { return parameters_; }
  std::span<const Parameter> all() const { return parameters_; }
  // nullptr when there is none of that name.
  Parameter* find(std::string_view name);
  // Throws ContractError when there is none of that name.
  Parameter& at(std::string_view name);

  void create_gradients(Backend& backend);  // a no-op when they exist
  void zero_gradients(Backend& backend);
  void create_flips(Backend& backend);  // of projections with codes of latent weights; likewise
  // i32: those of all projections that have them, in their order; empty until create_flips().
  ConstTensorView flips() const { return flips_; }
  std::int64_t count() const;  // number of weights

 private:
  WeightForm form_;
  Tensor gradients_;  // of all parameters, one behind the other, to be cleared at once
  Tensor flips_;      // likewise, to be copied at once
  std::vector<Parameter> parameters_;
};

}  // namespace bitnet
