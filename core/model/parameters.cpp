// SPDX-License-Identifier: MIT
#include "core/model/parameters.h"

namespace bitnet {

std::string weight_scale_name(const std::string& weight_name) { return weight_name + "_scale"; }

Parameters::Parameters(Backend& backend, const ModelConfig& config, WeightForm form,
                       const TensorSource& source)
    : form_(form) {
  const WeightQuantizer quantizer = config.weight_quantizer();
  const TensorSource zeros = [&](const StoredTensor& t) {
    return backend.make_tensor(t.dtype, t.shape);
  };
  const TensorSource& stored = source ? source : zeros;
  for (TensorSpec& spec : list_tensors(config)) {
    Parameter p;
    const bool quantized = spec.role == TensorRole::projection && config.quantized();
    const bool packed = quantized && form == WeightForm::packed;
    if (quantized) {
      const std::int64_t rows = spec.shape[0], columns = spec.shape[1];
      const TensorSource& codes =
          packed ? stored : zeros;  // latent: refresh_quantized() makes them
      p.packed = codes({spec.name, DType::u8, {rows / 4, columns}});
      p.weight_scale = codes(
          {weight_scale_name(spec.name), DType::f32,
           quantizer.group_size == 0 ? Shape{1} : Shape{rows, columns / quantizer.group_size}});
    }
    if (!packed) {
      const bool table = spec.role == TensorRole::embedding || spec.role == TensorRole::head;
      p.value = stored({spec.name, DType::f32, spec.shape, table && form == WeightForm::packed});
    }
    p.spec = std::move(spec);
    parameters_.push_back(std::move(p));
  }
}

Parameter* Parameters::find(std::string_view name) {
  for (Parameter& p : parameters_)
    if (p.spec.name == name) return &p;
  return nullptr;
}

Parameter& Parameters::at(std::string_view name) {
  Parameter* const p = find(name);
  BITNET_CHECK(p != nullptr, "the model has no parameter '{}'", name);
  return *p;
}

void Parameters::create_gradients(Backend& backend) {
  for (Parameter& p : parameters_) {
    BITNET_CHECK(p.value, "'{}' is packed and cannot be trained", p.spec.name);
    if (!p.gradient) p.gradient = backend.make_tensor(DType::f32, p.spec.shape);
  }
}

void Parameters::zero_gradients(Backend& backend) {
  for (Parameter& p : parameters_)
    if (p.gradient) backend.zero(p.gradient);
}

std::int64_t Parameters::count() const {
  std::int64_t total = 0;
  for (const Parameter& p : parameters_) total += p.spec.shape.elements();
  return total;
}

}  // namespace bitnet
