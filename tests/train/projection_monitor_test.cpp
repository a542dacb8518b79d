// SPDX-License-Identifier: MIT
#include "core/train/projection_monitor.h"

#include "core/cpu/cpu_backend.h"
#include "core/quant/ternary.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/support/tiny_model.h"

namespace bitnet {
namespace {

TEST_CASE("the flips of a projection are the codes that the last refresh changed") {
  const auto backend = make_cpu_backend(1);
  Transformer model(*backend, test::tiny_config(), WeightForm::latent);
  model.initialize(1);
  std::vector<std::vector<std::uint8_t>> earlier;
  for (const Parameter& p : model.parameters().all()) {
    if (p.packed) earlier.push_back(test::to_host<std::uint8_t>(*backend, p.packed));
  }
  model.initialize(2);
  const std::vector<ProjectionMetrics> all = measure_projections(*backend, model.parameters());
  REQUIRE(all.size() == earlier.size());
  std::size_t i = 0;
  for (const Parameter& p : model.parameters().all()) {
    if (!p.packed) continue;
    const auto codes = test::to_host<std::uint8_t>(*backend, p.packed);
    const CodeCounts counts = count_codes(codes);
    CHECK(all[i].flips == count_flips(codes, earlier[i]));
    CHECK(all[i].flips > 0);
    CHECK(all[i].zero == static_cast<double>(counts.zero) / static_cast<double>(counts.total()));
    CHECK(all[i].weight_scale == static_cast<double>(test::floats_of(*backend, p.weight_scale)[0]));
    ++i;
  }
  model.refresh_quantized();
  CHECK(measure_projections(*backend, model.parameters())[0].flips == 0);
}

}  // namespace
}  // namespace bitnet
