// SPDX-License-Identifier: MIT
// The configs that the repository ships.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/model/model_config.h"
#include "core/train/run_config.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

const std::filesystem::path kConfigs = std::filesystem::path(BITNET_SOURCE_DIR) / "configs";

RunConfig read_preset(const std::string& name) {
  const auto path = kConfigs / (name + ".json");
  return read_run_config(read_text_file(path), path.string());
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const TensorSpec& tensor : list_tensors(config)) count += tensor.shape.elements();
  return count;
}

TEST_CASE("every preset is a valid run config") {
  int presets = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".json") continue;
    INFO(entry.path().string());
    CHECK_NOTHROW(read_run_config(read_text_file(entry.path()), entry.path().string()));
    ++presets;
  }
  CHECK(presets >= 5);
}

TEST_CASE("the presets have the sizes that their names say") {
  const auto millions = [](const char* name) {
    return static_cast<double>(parameter_count(read_preset(name).model)) / 1e6;
  };
  const auto within = [](double value, double low, double high) {
    return low <= value && value <= high;
  };
  CHECK(within(millions("quickstart"), 1.0, 2.0));
  CHECK(within(millions("enwik8_5m"), 4.5, 5.5));
  CHECK(within(millions("enwik8_22m"), 20.5, 22.5));
  CHECK(within(millions("enwik8_41m"), 40.5, 41.5));
  CHECK(within(millions("2b4t"), 2300, 2500));
}

TEST_CASE("the enwik8 presets use the published split") {
  const std::string name = GENERATE("enwik8_5m", "enwik8_22m", "enwik8_41m");
  const RunConfig config = read_preset(name);
  CHECK(config.data.split == std::vector<double>{90e6, 5e6, 5e6});
  CHECK(config.model.vocab_size == 256);
  CHECK(config.model.linear == "b158");
}

}  // namespace
}  // namespace bitnet
