// SPDX-License-Identifier: MIT
#include "core/checkpoint/training_state.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/base/safetensors.h"
#include "core/checkpoint/model_metadata.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kStateFile = "trainer_state.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kFirstMoment = ".exp_avg";
constexpr const char* kSecondMoment = ".exp_avg_sq";

// All but `seed`, which needs all 64 bits, and the value that may be absent.
void visit_state(TrainingState& state, FieldVisitor& visitor) {
  visitor.field("step", state.step, 0, INT64_MAX, "updates done");
  visitor.field("tokens", state.tokens, 0, INT64_MAX, "bytes trained on");
  visitor.field("quant_amount", state.quant_amount, 0, 1,
                "quantisation warm-up of the last update");
  visitor.field("version", state.version, {}, "version of the program");
  visitor.field("device", state.device, {}, "device of the last update");
}

struct Moment {
  std::string name;
  TensorView values;
};

// Every tensor of optimizer.safetensors.
std::vector<Moment> list_moments(const Parameters& parameters, std::span<Tensor> first,
                                 std::span<Tensor> second) {
  const std::span<const Parameter> all = parameters.all();
  BITNET_CHECK(first.size() == all.size() && second.size() == all.size(),
               "{} and {} moments for {} parameters", first.size(), second.size(), all.size());
  std::vector<Moment> list;
  for (std::size_t i = 0; i < all.size(); ++i) {
    BITNET_CHECK(first[i].shape() == all[i].spec.shape && second[i].shape() == all[i].spec.shape,
                 "moments of '{}' have another shape", all[i].spec.name);
    list.push_back({all[i].spec.name + kFirstMoment, first[i]});
    list.push_back({all[i].spec.name + kSecondMoment, second[i]});
  }
  return list;
}

}  // namespace

void save_training_state(Backend& backend, const fs::path& folder, const TrainingState& state,
                         const Parameters& parameters, std::span<Tensor> first_moments,
                         std::span<Tensor> second_moments) {
  std::vector<float> buffer;
  std::vector<TensorToWrite> tensors;
  for (const Moment& moment : list_moments(parameters, first_moments, second_moments)) {
    tensors.push_back({.name = moment.name,
                       .dtype = "F32",
                       .shape = dims_of(moment.values.shape()),
                       .fetch = [&backend, &buffer, values = moment.values]() -> const void* {
                         buffer = host_floats(backend, values);
                         return buffer.data();
                       }});
  }
  write_safetensors(folder / kOptimizerFile, tensors, {});

  TrainingState copy = state;
  ordered_json object = write_fields([&](FieldVisitor& visitor) { visit_state(copy, visitor); });
  object["seed"] = state.seed;
  const auto& best = state.best_bits_per_byte;
  object["best_bits_per_byte"] = best && std::isfinite(*best) ? ordered_json(*best) : nullptr;
  write_file(folder / kStateFile, object.dump(2) + "\n");
}

TrainingState read_training_state(const fs::path& folder) {
  const fs::path file = folder / kStateFile;
  json object = parse_json(read_text_file(file, kMaxConfigBytes), file.string());
  const auto refuse = [&](const std::string& reason) {
    throw FormatError(file.string(), 0, reason);
  };
  if (!object.is_object()) refuse("is not a JSON object");
  for (const char* key : {"step", "tokens", "seed"}) {
    if (!object.contains(key)) refuse(fmt::format("lacks '{}'", key));
  }
  TrainingState state;
  const json seed = object["seed"], best = object.value("best_bits_per_byte", json());
  if (!seed.is_number_unsigned()) refuse("seed: expected an integer in [0, 2^64)");
  state.seed = seed.get<std::uint64_t>();
  if (!best.is_null()) {
    if (!best.is_number()) refuse("best_bits_per_byte: expected a number or null");
    state.best_bits_per_byte = best.get<double>();
  }
  object.erase("seed");
  object.erase("best_bits_per_byte");
  try {
    read_fields(object, "state", [&](FieldVisitor& visitor) { visit_state(state, visitor); });
  } catch (const UsageError& error) {
    refuse(error.what());
  }
  return state;
}

TrainingState load_training_state(Backend& backend, const fs::path& folder,
                                  const Parameters& parameters, std::span<Tensor> first_moments,
                                  std::span<Tensor> second_moments) {
  const TrainingState state = read_training_state(folder);
  const SafetensorsFile file(folder / kOptimizerFile);
  const std::vector<Moment> moments = list_moments(parameters, first_moments, second_moments);
  for (const Moment& moment : moments) {  // all are checked before any is changed
    const std::vector<std::int64_t> shape = dims_of(moment.values.shape());
    const SafetensorsFile::Entry* entry = file.find(moment.name);
    if (entry == nullptr) {
      throw FormatError(
          file.path().string(), 8,
          fmt::format("tensor '{}' is missing; expected F32 {}", moment.name, shape_text(shape)));
    }
    if (entry->dtype != "F32" || entry->shape != shape) {
      throw FormatError(file.path().string(), entry->offset,
                        fmt::format("tensor '{}' is {} {}, expected F32 {}", moment.name,
                                    entry->dtype, shape_text(entry->shape), shape_text(shape)));
    }
  }
  if (file.entries().size() != moments.size()) {
    throw FormatError(file.path().string(), 8,
                      fmt::format("{} tensors, expected {}; it belongs to another model",
                                  file.entries().size(), moments.size()));
  }
  for (const Moment& moment : moments) {
    backend.copy_from_host(file.find(moment.name)->bytes.data(), moment.values);
  }
  return state;
}

}  // namespace bitnet
