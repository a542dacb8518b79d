// SPDX-License-Identifier: MIT
// What --model means, and what is known about the run that made a model.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/convert/model_reader.h"
#include "core/data/data_config.h"

namespace CLI {
class App;
}

namespace bitnet {

inline constexpr const char* kDefaultModel = "runs/latest";

void add_model_option(CLI::App& command, std::string& model);

// open_model(), the reader's warnings on stderr.
std::unique_ptr<ModelReader> open_model_option(const std::string& model);

// --head, a HeadPrecision; `head` holds its default.
void add_head_option(CLI::App& command, std::string& head);
HeadPrecision parse_head(const std::string& head);

// --kv-cache, in what keys and values are kept; `kv_cache` holds its default.
void add_kv_cache_option(CLI::App& command, std::string& kv_cache);
DType parse_kv_cache(const std::string& kv_cache);
// What else can have made logits that are not finite: for the end of a message; empty for fp32.
std::string kv_cache_suspicion(const std::string& kv_cache);

// Where `bitnet quantize` puts the packed form of the model at `model` unless told:
// "<model>-packed". A link is followed first.
std::filesystem::path default_packed_folder(const std::filesystem::path& model);

// The "data" section of the config of the run that made a model: kept in a packed file, else read
// from the run's config.json, where the model is a checkpoint of the run, or the default packed
// folder of the run or of one of its checkpoints. Nothing where no run is known.
std::optional<DataConfig> find_run_data(const ModelReader& model);

// Metadata of a model file in which find_run_data() finds `data`.
std::map<std::string, std::string> data_metadata(DataConfig data);

}  // namespace bitnet
