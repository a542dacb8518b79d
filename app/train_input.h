// SPDX-License-Identifier: MIT
// What a training run reads: its tokenizer, its data, and the model that it begins with.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "core/convert/model_reader.h"
#include "core/data/text_data.h"
#include "core/train/trainer.h"

namespace bitnet {

// Of the checkpoint that a run goes on from, else of data.tokenizer, else of the model it begins with,
// else bytes. Throws UsageError where the model of the config has too few token ids for it, or was
// made for another one.
std::shared_ptr<const Tokenizer> choose_tokenizer(
    const RunConfig& config, const std::optional<std::filesystem::path>& checkpoint,
    const ModelReader* initial);

// data.path, opened. Encodes a text, saying so.
std::unique_ptr<TextData> open_data(const RunConfig& config,
                                    std::shared_ptr<const Tokenizer> tokenizer);
TrainingData training_data(TextData& data);

}  // namespace bitnet
