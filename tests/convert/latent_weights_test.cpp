// SPDX-License-Identifier: MIT
#include "core/convert/latent_weights.h"

#include <cmath>

#include "core/checkpoint/model_file.h"
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_configs.h"

namespace bitnet {
namespace {

SharedReader save_and_open(Transformer& model, const std::filesystem::path& folder, bool packed) {
  if (packed)
    save_packed(model, folder, FloatDtype::f32, /*force=*/false);
  else
    save_latent(model, folder);
  return open_native(folder);
}

// Each tensor of `config`'s model as read from `reader`.
std::unique_ptr<Transformer> read_into(Backend& backend, const ModelConfig& config,
                                       const SharedReader& reader) {
  auto model = std::make_unique<Transformer>(backend, config, WeightForm::latent);
  read_latent_weights(reader, *model);
  return model;
}

TEST_CASE("latent and float weights are taken as they are") {
  const auto backend = make_cpu_backend(1);
  for (const ModelConfig& config : test::tiny_configs()) {
    const test::TemporaryFolder folder;
    test::TinyModel source(*backend, config, 5);
    const auto copy = read_into(*backend, config, save_and_open(source, folder / "m", false));
    for (const Parameter& p : source.parameters().all())
      CHECK(test::floats_of(*backend, copy->parameters().at(p.spec.name).value) ==
            test::floats_of(*backend, p.value));
  }
}

TEST_CASE("packed weights become latent ones of the same codes and scales, all others stay") {
  const auto backend = make_cpu_backend(1);
  ModelConfig grouped = test::tiny_config("b158");
  grouped.weight_group_size = 64;
  for (const ModelConfig& config : {test::tiny_config("b158"), test::tiny_config("b1"), grouped}) {
    const test::TemporaryFolder folder;
    test::TinyModel source(*backend, config, 6);
    const auto copy = read_into(*backend, config, save_and_open(source, folder / "m", true));
    std::size_t projections = 0;
    for (const Parameter& p : source.parameters().all()) {
      const std::vector<float> expected = test::floats_of(*backend, p.value);
      if (p.spec.role == TensorRole::projection) {
        const std::int64_t rows = p.spec.shape[0], columns = p.spec.shape[1];
        std::vector<std::int8_t> codes(expected.size());
        std::vector<float> scales(
            static_cast<std::size_t>(scale_count(config.weight_quantizer(), rows, columns)));
        quantize_weights(config.weight_quantizer(), expected, rows, columns, codes, scales);
        const std::vector<float> latent =
            test::floats_of(*backend, copy->parameters().at(p.spec.name).value);
        std::vector<std::int8_t> same_codes(codes.size());
        std::vector<float> same_scales(scales.size());
        quantize_weights(config.weight_quantizer(), latent, rows, columns, same_codes, same_scales);
        CHECK(same_codes == codes);
        // Rounded once in the quotient and once in the mean.
        for (std::size_t i = 0; i < scales.size(); ++i)
          CHECK(std::abs(same_scales[i] - scales[i]) <= 0x1p-23f * scales[i]);
        ++projections;
        continue;
      }
      CHECK(test::floats_of(*backend, copy->parameters().at(p.spec.name).value) == expected);
    }
    CHECK(projections == 14);
  }
}

TEST_CASE("the weights of a float model are those of the BitLinears that replace its linears") {
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  test::TinyModel source(*backend, test::tiny_config("float"), 7);
  const SharedReader reader = save_and_open(source, folder / "m", false);
  for (const char* linear : {"b158", "b1"}) {
    const auto model = read_into(*backend, test::tiny_config(linear), reader);
    for (const Parameter& p : source.parameters().all())
      CHECK(test::floats_of(*backend, model->parameters().at(p.spec.name).value) ==
            test::floats_of(*backend, p.value));
    model->refresh_quantized();
    const auto tokens = test::random_tokens(3, 16, 32);
    const auto of_float = test::logits_of(source, tokens, 1);
    CHECK(test::distance(test::logits_of(*model, tokens, 1), of_float) > 0);
    // At the beginning of a quantisation warm-up it is the float model: the same products of the same
    // floats, but for the order of their sums.
    model->refresh_quantized(0);
    CHECK(test::distance(test::logits_of(*model, tokens, 1), of_float) <= 1e-5);
  }
}

}  // namespace
}  // namespace bitnet
