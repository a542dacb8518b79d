// SPDX-License-Identifier: MIT
#include "core/train/projection_monitor.h"

namespace bitnet {

ProjectionMonitor::ProjectionMonitor(Transformer& model) : model_(model) {
  for (const Parameter& p : model.parameters().all())
    if (p.packed) earlier_.push_back(model.backend().make_tensor(DType::u8, p.packed.shape()));
}

void ProjectionMonitor::remember() {
  auto earlier = earlier_.begin();
  for (const Parameter& p : model_.parameters().all())
    if (p.packed) model_.backend().copy(p.packed, *earlier++);
}

std::vector<ProjectionMetrics> ProjectionMonitor::measure() const {
  Backend& backend = model_.backend();
  std::vector<ProjectionMetrics> all;
  auto earlier = earlier_.begin();
  for (const Parameter& p : model_.parameters().all()) {
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
    m.flips = backend.count_flips(p.packed, *earlier++);
    m.weight_scale = backend.sum(p.weight_scale) / static_cast<double>(p.weight_scale.elements());
    all.push_back(std::move(m));
  }
  return all;
}

}  // namespace bitnet
