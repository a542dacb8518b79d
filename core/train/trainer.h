// SPDX-License-Identifier: MIT
// A training run: updates, and at their intervals metrics, evaluations, text samples and
// checkpoints. A run that is killed and resumed gives the same weights and metrics, bit for bit, as
// one that is not.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/checkpoint/run_folder.h"
#include "core/data/batch_loader.h"
#include "core/data/data_config.h"
#include "core/data/token_span.h"
#include "core/eval/bits_per_byte.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"
#include "core/train/optimizer.h"
#include "core/train/run_config.h"
#include "core/train/train_observer.h"
#include "core/train/update_step.h"

namespace bitnet {

// Bytes of what a run allocates.
struct MemoryPlan {
  std::int64_t weights = 0;      // latent and quantised
  std::int64_t optimizer = 0;    // gradients and moments
  std::int64_t activations = 0;  // of one micro-batch
  std::int64_t evaluation = 0;   // of an evaluation or a text sample, while it lasts
  std::int64_t total() const { return weights + optimizer + activations + evaluation; }
};

// Computed, not allocated: also for a run that would not fit.
MemoryPlan plan_memory(Backend& backend, const RunConfig& config);

// The windows that a run trains on.
BatchPlan plan_batches(const RunConfig& config);

// What a run learns from, as ids of its tokenizer. Borrows them.
struct TrainingData {
  TokenSpan train, valid;
  double bytes_per_token = 1;  // the mean, for bits per byte of the training loss

  TrainingData(TokenSpan train_tokens, TokenSpan valid_tokens, double mean_bytes)
      : train(train_tokens), valid(valid_tokens), bytes_per_token(mean_bytes) {}
  TrainingData(const DataSplits& bytes) : train(bytes.train), valid(bytes.valid) {}
};

// Fills every parameter of a latent model that is to be trained.
using InitialWeights = std::function<void(Transformer&)>;

struct TrainSummary {
  std::int64_t step = 0, tokens = 0;          // of the whole run
  std::optional<double> loss;                 // of the last update, if there was one
  std::optional<double> valid_bits_per_byte;  // of the last evaluation, if there was one
  double tokens_per_second = 0;               // updates only
  double seconds = 0;                         // since run() began
  bool interrupted = false;
};

class Trainer {
 public:
  // Allocates all that training needs; the weights are those of `initial`, without it random ones of
  // train.seed. `backend` and the data must outlive it. Throws UsageError for a tokenizer with more
  // ids than the model.
  Trainer(Backend& backend, const RunConfig& config, const TrainingData& data,
          std::string program_version,
          std::shared_ptr<const Tokenizer> tokenizer = byte_tokenizer(),
          const InitialWeights& initial = {});
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // Goes on from a checkpoint. Throws Error or FormatError when it is damaged or of another model.
  void resume(const std::filesystem::path& checkpoint);

  // Trains up to train.max_steps, writing metrics, TensorBoard events and checkpoints into
  // `folder`. When `stop` becomes true: finishes the step, writes a checkpoint and returns. Throws
  // Error when the loss, a gradient or a weight is not finite, or something cannot be written;
  // checkpoints that were complete stay. When anything else fails after an update, the update is
  // saved first.
  TrainSummary run(RunFolder& folder, TrainObserver& observer, const std::atomic<bool>& stop);

  Transformer& model() { return model_; }
  std::int64_t step() const { return step_; }  // updates done
  std::int64_t tokens_per_step() const { return update_.tokens_per_step(); }
  MemoryPlan memory() const;  // what was allocated; of no evaluation

 private:
  void train(RunFolder& folder, const std::atomic<bool>& stop, TrainSummary& summary);
  // What is due at this step but the checkpoint.
  void report(const TrainMetrics* metrics, TrainSummary& summary);
  TrainMetrics measure(const UpdateStep::Result& result) const;
  EvalMetrics evaluate_valid();
  SampleMetrics sample();
  void save(RunFolder& folder);

  const RunConfig config_;
  const TrainingData data_;
  const std::string program_version_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  Transformer model_;
  Optimizer optimizer_;
  BatchLoader loader_;
  UpdateStep update_;
  std::vector<TrainObserver*> observers_;  // during run()

  std::int64_t step_ = 0;
  std::optional<double> best_bits_per_byte_;  // of the checkpoints
  std::optional<double> bits_per_byte_;       // of this step, if it was evaluated
  std::optional<EvalText> valid_text_;        // what evaluations score; at the first one
};

}  // namespace bitnet
