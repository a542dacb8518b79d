// SPDX-License-Identifier: MIT
#include "app/bench_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "app/bench_folder.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "core/base/error.h"
#include "core/bench/load.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const char* what, int error) {
  throw Error(fmt::format("cannot {} the process that loads the model: {}", what,
                          std::generic_category().message(error)));
}

// Fails as the process did, which has said on stderr why.
void check_status(int status, const fs::path& folder) {
  if (WIFSIGNALED(status))
    throw Error(fmt::format("the process that loads the model was killed by signal {} ({})",
                            WTERMSIG(status), ::strsignal(WTERMSIG(status))));
  const std::string message = "the process that loads the model failed; its message is above";
  switch (WEXITSTATUS(status)) {
    case 0:
      return;
    case 3:
      throw FormatError((folder / "model.safetensors").string(), 0, message);
    case 4:
      throw DeviceError(message);
    default:
      throw Error(message);
  }
}

struct ProcessResult {
  std::string output;  // to stdout
  int status = 0;      // as waitpid() gives it
};

// This program with these arguments.
ProcessResult run_self(std::vector<std::string> arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail("start", errno);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  arguments.insert(arguments.begin(), "bitnet");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t process = 0;
  const int error =
      ::posix_spawn(&process, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  ProcessResult result;
  char buffer[4096];
  for (ssize_t count; error == 0 && (count = ::read(ends[0], buffer, sizeof buffer)) != 0;) {
    if (count > 0) result.output.append(buffer, static_cast<std::size_t>(count));
    if (count < 0 && errno != EINTR) break;
  }
  ::close(ends[0]);
  if (error != 0) fail("start", error);
  while (::waitpid(process, &result.status, 0) < 0)
    if (errno != EINTR) fail("wait for", errno);
  return result;
}

// The clock of all processes: its time points are nanoseconds since the machine started.
using Clock = std::chrono::steady_clock;

struct TimedLoad {
  double seconds = 0;  // from before the process began to its first token
  LoadResult result;
};

TimedLoad run_load_process(const fs::path& folder, const std::string& head,
                           const std::string& kv_cache, const std::string& device, int threads) {
  const Clock::time_point start = Clock::now();
  const ProcessResult process =
      run_self({"bench", "--load-once", folder.string(), "--head", head, "--kv-cache", kv_cache,
                "--device", device, "--threads", fmt::format("{}", threads)});
  check_status(process.status, folder);
  const nlohmann::json object = nlohmann::json::parse(process.output);
  const Clock::time_point first_token{
      std::chrono::nanoseconds(object.at("first_token_nanoseconds").get<std::int64_t>())};
  return {std::chrono::duration<double>(first_token - start).count(),
          {.first_token = first_token,
           .peak_memory_bytes = object.at("peak_memory_bytes"),
           .head_bytes = object.at("head_bytes"),
           .kv_cache_bytes = object.at("kv_cache_bytes")}};
}

}  // namespace

void run_load_once(AppContext& context, const std::string& folder, const std::string& head,
                   const std::string& kv_cache) {
  const LoadResult result =
      load_first_token(context.backend(), folder, parse_head(head), parse_kv_cache(kv_cache));
  const std::chrono::nanoseconds first_token = result.first_token.time_since_epoch();
  write_json_line({{"first_token_nanoseconds", first_token.count()},
                   {"peak_memory_bytes", result.peak_memory_bytes},
                   {"head_bytes", result.head_bytes},
                   {"kv_cache_bytes", result.kv_cache_bytes}});
}

BenchRow measure_load(std::unique_ptr<Transformer> model, const std::string& head,
                      const std::string& kv_cache, int threads, const MachineRates& rates,
                      const BenchEffort& effort) {
  const BenchFolder temporary;
  const std::int64_t needed = bench_model_bytes(*model);
  std::error_code unknown;
  const fs::space_info space = fs::space(temporary.path(), unknown);
  if (!unknown && space.available < static_cast<std::uintmax_t>(needed))
    throw Error(
        fmt::format("{}: there are {} bytes free, but the model's file needs {}; set TMPDIR "
                    "to a folder with more room",
                    temporary.path().string(), space.available, needed));
  const fs::path folder = temporary.path() / "model";
  const std::int64_t file_bytes = write_bench_model(*model, folder);
  const std::string device = model->backend().name();
  model.reset();

  // The first is the warm-up: the file is in the page cache then.
  LoadResult result = run_load_process(folder, head, kv_cache, device, threads).result;
  std::vector<double> seconds;
  std::int64_t peak = 0;
  for (int i = 0; i < effort.repeats; ++i) {
    const TimedLoad load = run_load_process(folder, head, kv_cache, device, threads);
    result = load.result;
    seconds.push_back(load.seconds);
    peak = std::max(peak, result.peak_memory_bytes);
  }
  const bool copied = rates.copy_to_device > 0;
  BenchRow row{.workload = "load",
               .unit = "s",
               .value = summarize(seconds),
               // Each byte once: from the host's memory to the device's, or by the processor.
               .limit = static_cast<double>(file_bytes) /
                        (copied ? rates.copy_to_device : rates.memory_read),
               .bound_by = copied ? "copy_to_device" : "memory_read",
               .peak_memory_bytes = peak,
               .details = {}};
  row.fraction_of_limit = row.limit / row.value.median;
  row.details = {{"file_bytes", static_cast<double>(file_bytes)},
                 {"head_bytes", static_cast<double>(result.head_bytes)},
                 {"kv_cache_bytes", static_cast<double>(result.kv_cache_bytes)}};
  if (peak > 0 && !copied)  // what is copied is no memory of the process
    row.details.emplace_back(
        "memory_beyond_file_head_and_kv_bytes",
        static_cast<double>(peak - file_bytes - result.head_bytes - result.kv_cache_bytes));
  return row;
}

}  // namespace bitnet
