// SPDX-License-Identifier: MIT
#include "core/train/projection_monitor.h"

namespace bitnet {

std::vector<ProjectionMetrics> measure_projections(Backend& backend, const Parameters& parameters) {
  std::vector<const Parameter*> projections;
  std::vector<ConstTensorView> packed, scales;
  for (const Parameter& p : parameters.all()) {
    if (!p.packed) continue;
    projections.push_back(&p);
    packed.push_back(p.packed);
    scales.push_back(p.weight_scale);
  }
  // Three waits for the device in all.
  std::vector<CodeCounts> counts(packed.size());
  backend.count_codes(packed, counts);
  std::vector<double> scale_sums(scales.size());
  backend.sums(scales, {}, scale_sums);
  std::vector<std::int32_t> flips(static_cast<std::size_t>(parameters.flips().elements()));
  if (!flips.empty()) backend.copy_to_host(parameters.flips(), flips.data());

  std::vector<ProjectionMetrics> all;
  auto next_flips = flips.begin();
  for (std::size_t i = 0; i < projections.size(); ++i) {
    const Parameter& p = *projections[i];
    const auto share = [&](std::int64_t count) {
      return static_cast<double>(count) / static_cast<double>(counts[i].total());
    };
    ProjectionMetrics m;
    m.name = p.spec.name.substr(0, p.spec.name.rfind(".weight"));
    m.minus = share(counts[i].minus);
    m.zero = share(counts[i].zero);
    m.plus = share(counts[i].plus);
    if (p.flips) m.flips = *next_flips++;
    m.weight_scale = scale_sums[i] / static_cast<double>(p.weight_scale.elements());
    all.push_back(std::move(m));
  }
  return all;
}

}  // namespace bitnet
