// SPDX-License-Identifier: MIT
// What a checkpoint holds beside the model: trainer_state.json and the optimizer's moments
// (optimizer.safetensors).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "core/model/parameters.h"

namespace bitnet {

struct TrainingState {
  std::int64_t step = 0;    // updates done
  std::int64_t tokens = 0;  // trained on
  std::uint64_t seed = 0;
  double quant_amount = 1.0;                 // λ of the last update
  std::optional<double> best_bits_per_byte;  // of the checkpoints so far, this one too
  std::string version;                       // of the program that wrote it
  std::string device;                        // Backend::name() of the last update; "" if unknown

  bool operator==(const TrainingState&) const = default;
};

// Writes both files into `folder`. first_moments and second_moments are parallel to
// parameters.all(), f32 and of the same shapes.
void save_training_state(Backend& backend, const std::filesystem::path& folder,
                         const TrainingState& state, const Parameters& parameters,
                         std::span<Tensor> first_moments, std::span<Tensor> second_moments);

// Fills the moments. Throws Error or FormatError when a file is missing, damaged or of another
// model.
TrainingState load_training_state(Backend& backend, const std::filesystem::path& folder,
                                  const Parameters& parameters, std::span<Tensor> first_moments,
                                  std::span<Tensor> second_moments);

// trainer_state.json alone.
TrainingState read_training_state(const std::filesystem::path& folder);

}  // namespace bitnet
