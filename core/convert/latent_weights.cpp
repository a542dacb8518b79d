// SPDX-License-Identifier: MIT
#include "core/convert/latent_weights.h"

#include <algorithm>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/quant/ternary.h"

namespace bitnet {
namespace {

// scale · code -> (scale / share of codes that are not 0) · code, so that the mean of the magnitudes
// of each group is its scale again.
void keep_absmean(std::span<float> values, std::size_t groups) {
  const std::size_t size = values.size() / groups;
  for (; !values.empty(); values = values.subspan(size)) {
    const auto group = values.first(size);
    const auto zeros = std::count(group.begin(), group.end(), 0.0f);
    const double share = 1.0 - static_cast<double>(zeros) / static_cast<double>(size);
    if (share == 0) continue;
    for (float& value : group) value = static_cast<float>(value / share);
  }
}

}  // namespace

void read_latent_weights(const SharedReader& reader, Transformer& model) {
  BITNET_CHECK(model.parameters().form() == WeightForm::latent, "the transformer is packed");
  const SharedReader floats = reader->form() == WeightForm::packed ? dense_view(reader) : reader;
  const WeightQuantizer quantizer = model.config().weight_quantizer();
  const bool keeps_scales = reader->form() == WeightForm::packed &&
                            quantizer.kind == LinearKind::b158 &&
                            quantizer.measure == ScaleMeasure::absmean;
  std::vector<float> values;
  for (Parameter& p : model.parameters().all()) {
    values.resize(static_cast<std::size_t>(p.value.elements()));
    floats->read_floats(p.spec.name, values);
    if (keeps_scales && p.spec.role == TensorRole::projection) {
      const auto groups = scale_count(quantizer, p.spec.shape[0], p.spec.shape[1]);
      keep_absmean(values, static_cast<std::size_t>(groups));
    }
    model.backend().copy_from_host(values.data(), p.value);
  }
}

}  // namespace bitnet
