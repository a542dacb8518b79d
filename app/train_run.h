// SPDX-License-Identifier: MIT
// Which run bitnet train means: its folder and its config.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/train/run_config.h"

namespace bitnet {

struct TrainArguments {
  std::string config, out, resume, init;
  std::vector<std::string> settings;
  bool resuming = false, force = false, dry_run = false, print_config = false, json = false;
};

// The folder that --resume means: its value, else --out, else the last run. Links are followed here,
// once: runs/latest may soon lead elsewhere.
std::filesystem::path folder_to_resume(const TrainArguments& arguments);

// The config of the run in `folder`, with `settings` over it.
RunConfig read_saved_config(const std::filesystem::path& folder,
                            std::span<const std::string> settings = {});

// `resumed`: the run to go on with, if any. `initial` opens the model of --init or train.init, without
// which there must be a --config; of a resumed run, it gives the run's own.
RunConfig read_config(const TrainArguments& arguments,
                      const std::optional<std::filesystem::path>& resumed,
                      const InitialModel& initial);

// runs/<config name>-<YYYYmmdd-HHMMSS>, with "-2", "-3", … where that exists.
std::filesystem::path default_run_folder(const std::string& config);

}  // namespace bitnet
