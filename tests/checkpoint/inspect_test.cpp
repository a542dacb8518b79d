// SPDX-License-Identifier: MIT
#include "core/checkpoint/inspect.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/checkpoint/model_file.h"
#include "tests/checkpoint/small_model.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;

namespace {

const TensorReport& tensor(const InspectReport& report, const std::string& name) {
  const auto found = std::find_if(report.tensors.begin(), report.tensors.end(),
                                  [&](const TensorReport& t) { return t.name == name; });
  REQUIRE(found != report.tensors.end());
  return *found;
}

bool warns(const InspectReport& report, const std::string& text) {
  return std::any_of(report.warnings.begin(), report.warnings.end(),
                     [&](const std::string& w) { return w.find(text) != std::string::npos; });
}

const std::string kQuery = "model.layers.0.self_attn.q_proj.weight";

}  // namespace

TEST_CASE("latent and packed files report the same codes and scales") {
  const std::string linear = GENERATE("b158", "b1");
  const std::int64_t group = GENERATE(0, 64);
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  ModelConfig config = test::small_config(linear);
  config.weight_group_size = group;
  const auto model = test::make_small_model(*backend, config);
  save_latent(*model, folder.path());
  save_packed(*model, folder / "p", FloatDtype::f32, false);
  const InspectReport latent = inspect_file(folder.path()), packed = inspect_file(folder / "p");
  CHECK(latent.warnings.empty());
  CHECK(packed.warnings.empty());
  CHECK(latent.config == resolved(config));
  CHECK(packed.form == WeightForm::packed);
  std::int64_t projections = 0;
  for (const TensorReport& t : latent.tensors) {
    if (!t.codes) continue;
    ++projections;
    const TensorReport& twin = tensor(packed, t.name);
    REQUIRE(twin.codes);
    CHECK(t.codes->minus == twin.codes->minus);
    CHECK(t.codes->zero == twin.codes->zero);
    CHECK(t.codes->plus == twin.codes->plus);
    CHECK(t.weight_scale == twin.weight_scale);
  }
  CHECK(projections == 14);
  CHECK(packed.file_bytes == SafetensorsFile(packed.file).file_bytes());
}

TEST_CASE("the statistics of a float tensor are those of its values") {
  const test::TemporaryFolder folder;
  const std::vector<float> values = {1, 2, 3, -6};
  const std::vector<std::uint16_t> halves = {0x3f80, 0x4000};
  const std::vector<TensorToWrite> tensors = {
      {.name = "f", .dtype = "F32", .shape = {4}, .bytes = values.data()},
      {.name = "h", .dtype = "BF16", .shape = {2}, .bytes = halves.data()},
      {.name = "i", .dtype = "I32", .shape = {4}, .bytes = values.data()}};
  write_safetensors(folder / "f", tensors, {});
  const InspectReport report = inspect_file(folder / "f");
  CHECK(!report.config);
  CHECK(warns(report, "no model configuration"));
  const FloatStatistics& s = *tensor(report, "f").values;
  CHECK(s.min == -6);
  CHECK(s.max == 3);
  CHECK(s.mean == 0);
  CHECK(s.std == std::sqrt(12.5));
  CHECK(tensor(report, "h").values->mean == 1.5);
  CHECK(!tensor(report, "i").values);
  CHECK(tensor(report, "i").bytes == 16);
}

TEST_CASE("suspicious tensors are warned about") {
  const test::TemporaryFolder folder;
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> zeros(4, 0.0f), ones(4, 1.0f), broken = {1, inf, nan, 2},
                                                          all_nan(4, nan);
  const float scale = 1;
  const std::vector<std::uint8_t> codes = {0x03, 0x55}, dead = {0x55, 0x55};
  write_safetensors(
      folder / "f",
      std::vector<TensorToWrite>{
          {.name = "zeros", .dtype = "F32", .shape = {4}, .bytes = zeros.data()},
          {.name = "ones", .dtype = "F32", .shape = {4}, .bytes = ones.data()},
          {.name = "a.norm.weight", .dtype = "F32", .shape = {4}, .bytes = ones.data()},
          {.name = "broken", .dtype = "F32", .shape = {4}, .bytes = broken.data()},
          {.name = "nan", .dtype = "F32", .shape = {4}, .bytes = all_nan.data()},
          {.name = "none", .dtype = "F32", .shape = {0}},
          {.name = "w", .dtype = "U8", .shape = {1, 2}, .bytes = codes.data()},
          {.name = "w_scale", .dtype = "F32", .shape = {1}, .bytes = &scale},
          {.name = "d", .dtype = "U8", .shape = {1, 2}, .bytes = dead.data()},
          {.name = "d_scale", .dtype = "F32", .shape = {1}, .bytes = &scale}},
      {});
  const InspectReport report = inspect_file(folder / "f");
  CHECK(warns(report, "tensor 'zeros': all values are 0"));
  CHECK(warns(report, "tensor 'ones': all values are 1"));
  CHECK(!warns(report, "a.norm.weight"));
  CHECK(!warns(report, "'w_scale'"));
  CHECK(!warns(report, "'none'"));
  CHECK(warns(report, "tensor 'broken': 2 values are not finite"));
  CHECK(warns(report, "tensor 'nan': 4 values are not finite"));
  CHECK(warns(report, "tensor 'w': 1 packed values are 3"));
  CHECK(warns(report, "tensor 'd': all codes are 0"));
  CHECK(tensor(report, "broken").values->max == 2);
  CHECK(tensor(report, "w").weight_scale == 1.0);
}

TEST_CASE("a model with wrong tensors is inspected, with warnings") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_latent(*model, folder.path());
  const SafetensorsFile file(folder / "model.safetensors");
  std::vector<TensorToWrite> tensors;
  for (const auto& e : file.entries()) {
    if (e.name == "model.norm.weight") continue;
    tensors.push_back(
        {.name = e.name, .dtype = e.dtype, .shape = e.shape, .bytes = e.bytes.data()});
    if (e.name == kQuery) tensors.back().shape = {32, 128};
  }
  const float value = 1;
  tensors.push_back({.name = "surprise\n", .dtype = "F32", .shape = {}, .bytes = &value});
  write_safetensors(folder / "changed", tensors, file.metadata());
  const InspectReport report = inspect_file(folder / "changed");
  CHECK(warns(report, "tensor 'model.norm.weight' is missing"));
  CHECK(warns(report,
              "tensor '" + kQuery + "' is F32 [32, 128], expected F32, BF16 or F16 [64, 64]"));
  CHECK(warns(report, "unknown tensor 'surprise\\x0a'"));
  CHECK(!tensor(report, kQuery).codes);
}

TEST_CASE("what is no safetensors file is refused by inspection") {
  const test::TemporaryFolder folder;
  write_file(folder / "f", "hello");
  CHECK_THROWS_AS(inspect_file(folder / "f"), FormatError);
  CHECK_THROWS_AS(inspect_file(folder / "none"), Error);
}
