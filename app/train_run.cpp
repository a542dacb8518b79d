// SPDX-License-Identifier: MIT
#include "app/train_run.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "app/model_option.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/checkpoint/run_folder.h"

namespace bitnet {

namespace fs = std::filesystem;

fs::path folder_to_resume(const TrainArguments& arguments) {
  if (!arguments.resume.empty() && !arguments.out.empty())
    throw UsageError("--resume DIR and --out DIR name the folder twice; give it once");
  const bool named = !arguments.resume.empty() || !arguments.out.empty();
  fs::path folder = named ? fs::path(arguments.resume.empty() ? arguments.out : arguments.resume)
                          : fs::path(kDefaultModel);
  std::error_code code;
  // Where there are no symbolic links, it is a text file.
  if (folder.filename() == "latest" && fs::is_regular_file(folder, code))
    folder = pointed_path(folder).value_or(folder);
  const fs::path real = fs::canonical(folder, code);
  if (code && !named)
    throw UsageError(
        fmt::format("{} points to no run; name the folder to --resume", folder.string()));
  if (!code) folder = folder.is_absolute() ? real : fs::proximate(real, code);
  if (code) throw Error(fmt::format("{}: {}", folder.string(), code.message()));
  if (looks_like_checkpoint(folder))
    throw UsageError(
        fmt::format("{} is a checkpoint; give --resume the folder of its run", folder.string()));
  return folder;
}

RunConfig read_saved_config(const fs::path& folder, std::span<const std::string> settings) {
  const fs::path file = folder / "config.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored))
    throw Error(
        fmt::format("{}: is not the folder of a run: it has no config.json", folder.string()));
  return read_run_config(read_text_file(file), file.string(), settings);
}

RunConfig read_config(const TrainArguments& arguments, const std::optional<fs::path>& resumed,
                      const InitialModel& initial) {
  std::vector<std::string> settings = arguments.settings;
  if (!arguments.init.empty())
    settings.push_back("train.init=" + nlohmann::json(arguments.init).dump());
  if (!arguments.config.empty())
    return read_run_config(read_text_file(arguments.config), arguments.config, settings, initial);
  if (resumed) return read_saved_config(*resumed, settings);
  if (arguments.init.empty())
    throw UsageError(
        "--config FILE is needed, for example configs/quickstart.json; or --resume a run");
  return read_run_config("{}", "--init", settings, initial);
}

fs::path default_run_folder(const std::string& config) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char time[32];
  std::strftime(time, sizeof time, "%Y%m%d-%H%M%S", &local);
  const fs::path folder = fs::path("runs") / (fs::path(config).stem().string() + "-" + time);
  fs::path unused = folder;
  std::error_code ignored;
  for (int n = 2; fs::exists(unused, ignored); ++n)
    unused = fmt::format("{}-{}", folder.string(), n);
  return unused;
}

}  // namespace bitnet
