// SPDX-License-Identifier: MIT
// Any bytes as a model's config.json: refused with an Error, or a configuration that keeps every
// rule and survives being written and read.
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/checkpoint/model_config_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bitnet;
  ModelConfig config;
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    config = config_from_json(parse_json(text, "config.json"), "config.json");
  } catch (const Error&) {
    return 0;
  }
  config.validate();
  const nlohmann::ordered_json written =
      config_to_json(config, WeightForm::latent, FloatDtype::f32);
  if (resolved(config_from_json(nlohmann::json::parse(written.dump()), "written")) !=
      resolved(config))
    __builtin_trap();
  return 0;
}
