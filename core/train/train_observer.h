// SPDX-License-Identifier: MIT
// What a training run tells the outside: numbers of a step, of an evaluation, a text sample, a
// checkpoint. Fields under "timing" differ from run to run; all others are a pure function of
// config and data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace bitnet {

// Of one quantised projection.
struct ProjectionMetrics {
  std::string name;                      // "model.layers.0.self_attn.q_proj"
  double minus = 0, zero = 0, plus = 0;  // shares of the codes -1, 0, +1
  std::int64_t flips = 0;                // codes that this update changed
  double weight_scale = 0;               // mean over groups
};

struct TrainMetrics {
  std::int64_t step = 0;                       // updates done
  std::int64_t tokens = 0;                     // trained on so far
  double loss = 0;                             // nats, mean over the tokens of this update
  double bits_per_byte = 0;                    // by the mean bytes of a token of the training data
  double learning_rate = 0, weight_decay = 0;  // of this update
  double gradient_norm = 0;                    // before clipping
  double quant_amount = 1;                     // λ of this update
  std::vector<ProjectionMetrics> projections;
  // timing
  double tokens_per_second =
      0;               // since the previous TrainMetrics, evaluations and checkpoints left out
  double seconds = 0;  // since this process began to train
};

struct EvalMetrics {
  std::int64_t step = 0;
  std::int64_t bytes = 0;
  double loss = 0;  // nats, mean over the tokens
  double bits_per_byte = 0;
  // timing
  double tokens_per_second = 0, seconds = 0;
};

struct SampleMetrics {
  std::int64_t step = 0;
  std::string prompt, text;  // any bytes
};

class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void on_step(std::int64_t /*step*/, double /*loss*/) {}  // every update
  virtual void on_train(const TrainMetrics&) {}  // every logging_steps, the first and the last
  virtual void on_eval(const EvalMetrics&) {}
  virtual void on_sample(const SampleMetrics&) {}
  // Before a checkpoint is written: what was told so far must outlive a crash.
  virtual void before_checkpoint() {}
  // best: its evaluation is lower than those of all checkpoints before.
  virtual void on_checkpoint(std::int64_t /*step*/, const std::filesystem::path& /*folder*/,
                             bool /*best*/) {}
};

}  // namespace bitnet
