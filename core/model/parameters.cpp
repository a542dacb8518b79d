// SPDX-License-Identifier: MIT
#include "core/model/parameters.h"

#include <algorithm>

namespace bitnet {

namespace {

// Within memory that is another tensor's.
Tensor borrowed(std::byte* memory, DType dtype, const Shape& shape) {
  return {Storage(memory, [](std::byte*) {}), dtype, shape};
}

}  // namespace

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
  if (gradients_) return;
  constexpr std::int64_t kAlignment = 64;  // elements: each gradient begins as an allocation would
  const auto room = [](const Parameter& p) {
    return (p.spec.shape.elements() + kAlignment - 1) / kAlignment * kAlignment;
  };
  std::int64_t elements = 0;
  for (const Parameter& p : parameters_) {
    BITNET_CHECK(p.value, "'{}' is packed and cannot be trained", p.spec.name);
    elements += room(p);
  }
  gradients_ = backend.make_tensor(DType::f32, {elements});
  std::byte* next = gradients_.view().raw();
  for (Parameter& p : parameters_) {
    p.gradient = borrowed(next, DType::f32, p.spec.shape);
    next += room(p) * size_of(DType::f32);
  }
}

void Parameters::zero_gradients(Backend& backend) {
  if (gradients_) backend.zero(gradients_);
}

void Parameters::create_flips(Backend& backend) {
  if (flips_) return;
  const auto changes = [](const Parameter& p) { return p.packed && p.value; };
  flips_ = backend.make_tensor(DType::i32,
                               {std::count_if(parameters_.begin(), parameters_.end(), changes)});
  std::byte* next = flips_.view().raw();
  for (Parameter& p : parameters_) {
    if (!changes(p)) continue;
    p.flips = borrowed(next, DType::i32, {1});
    next += size_of(DType::i32);
  }
}

std::int64_t Parameters::count() const {
  std::int64_t total = 0;
  for (const Parameter& p : parameters_) total += p.spec.shape.elements();
  return total;
}

}  // namespace bitnet
