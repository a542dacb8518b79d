// SPDX-License-Identifier: MIT
#include "core/train/projection_monitor.h"

namespace bitnet {

std::vector<ProjectionMetrics> measure_projections(Backend& backend, const Parameters& parameters) {
  std::vector<ProjectionMetrics> all;
  for (const Parameter& p : parameters.all()) {
    if (!p.packed) continue;
    const CodeCounts counts = backend.count_codes(p.packed);
    const auto share = [&](std::int64_t count) {
      return static_cast<double>(count) / static_cast<double>(counts.total());
    };
    ProjectionMetrics m;
    m.name = p.spec.name.substr(0, p.spec.name.rfind(".weight"));
    m.minus = share(counts.minus);
    m.zero = share(counts.zero);
    m.plus = share(counts.plus);
    if (p.flips) {
      std::int32_t flips = 0;
      backend.copy_to_host(p.flips, &flips);
      m.flips = flips;
    }
    m.weight_scale = backend.sum(p.weight_scale) / static_cast<double>(p.weight_scale.elements());
    all.push_back(std::move(m));
  }
  return all;
}

}  // namespace bitnet
