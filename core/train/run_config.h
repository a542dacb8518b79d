// SPDX-License-Identifier: MIT
// Everything that defines a run: the model, the data and the training, as one JSON file with one
// section for each.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/data/data_config.h"
#include "core/model/model_config.h"
#include "core/train/train_config.h"

namespace bitnet {

struct RunConfig {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;

  bool operator==(const RunConfig&) const = default;

  // Throws UsageError for values that break a rule of a section or do not fit together.
  void validate() const;
};

// The model that train.init names.
using InitialModel = std::function<ModelConfig(const std::string& path)>;

// Reads `text` with `settings` laid over it, each "section.key=value" (a value that is not JSON is
// a string). The model's profile is applied first, whoever names it; then every key that is given
// wins over it. A train.sequence_length of 0 becomes the model's. `path` is only used in messages.
// Where train.init is set and `initial` given, keys of "model" default to those of that model, and
// one that differs from it is refused (see check_initial_model). Throws FormatError for broken JSON
// and UsageError for unknown or ill-typed keys, naming the nearest valid one; calls validate().
RunConfig read_run_config(std::string_view text, const std::string& path,
                          std::span<const std::string> settings = {},
                          const InitialModel& initial = {});

// Whether a run of `model` may begin with the weights of `initial`: the tensors must be the same and
// mean the same. profile, dropout and initializer_range may differ; of a float model also linear,
// weight_scale, weight_group_size and activation_bits, since its weights quantise to anything.
// Throws UsageError naming the first key that may not. `path` of the initial model is only used in
// messages.
void check_initial_model(const ModelConfig& initial, const ModelConfig& model,
                         const std::string& path);

// Every key; read_run_config() of it gives the same config.
std::string write_run_config(const RunConfig& config);

// Whether a run begun with `before` may go on with `now`. All of "train" may change but init, seed,
// sequence_length and the number of sequences of a step; of "data" only the path. Throws UsageError
// naming the first key that may not.
void check_resumable(const RunConfig& before, const RunConfig& now);

// What differs: "train.max_steps was 400, now it is 440" and so on.
std::vector<std::string> describe_changes(const RunConfig& before, const RunConfig& now);

}  // namespace bitnet
