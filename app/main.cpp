// SPDX-License-Identifier: MIT
// The program: reads the command line, runs one command, and turns exceptions into exit codes.
//   0 done    1 it failed    2 wrong usage or config    3 a file's bytes are wrong    4 no device
//   or memory    130 interrupted
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <sstream>
#include <vector>

#include "app/commands.h"
#include "app/standard_streams.h"
#include "app/version.h"
#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {
namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kFormat = 3, kDevice = 4 };

// Always a single line, whatever the message holds.
int report(ExitCode code, std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  write_stderr_line("bitnet: error: " + message);
  return code;
}

// Help and version are CLI11's exceptions too.
int report_parse_result(const CLI::App& program, const CLI::ParseError& result,
                        const std::string& first_word) {
  if (result.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
    std::ostringstream out, ignored;
    program.exit(result, out, ignored);
    write_stdout(out.str());
    return kDone;
  }
  const auto chosen = program.get_subcommands();
  if (chosen.empty() && !first_word.empty() && first_word.front() != '-') {
    std::vector<std::string> names;
    for (const CLI::App* command : program.get_subcommands([](const CLI::App*) { return true; }))
      names.push_back(command->get_name());
    const std::string nearest = nearest_word(first_word, names);
    return report(kUsage,
                  fmt::format("there is no command '{}'{}; the commands are {}", first_word,
                              nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest),
                              fmt::join(names, ", ")));
  }
  const std::string name = chosen.empty() ? "bitnet" : "bitnet " + chosen.front()->get_name();
  return report(kUsage, fmt::format("{} (see {} --help)", result.what(), name));
}

int run(int argc, char** argv) {
  AppContext context;
  CLI::App program("Trains, evaluates, quantizes and runs 1-bit language models.", "bitnet");
  program.set_version_flag("--version",
                           fmt::format("bitnet {} (git {}; {})", kVersion, kGitId, kBuild));
  program.require_subcommand(1);
  program.footer(
      "Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong "
      "usage or config,\n"
      "3 a file is damaged or foreign, 4 no usable device or memory, 130 interrupted.");
  add_train_command(program, context);
  add_eval_command(program, context);
  add_generate_command(program, context);
  add_quantize_command(program, context);
  add_import_command(program, context);
  add_export_command(program, context);
  add_tokenize_command(program, context);
  add_inspect_command(program, context);
  add_bench_command(program, context);
  add_devices_command(program, context);
  try {
    program.parse(argc, argv);  // runs the command
  } catch (const CLI::ParseError& result) {
    return report_parse_result(program, result, argc > 1 ? argv[1] : "");
  }
  return context.exit_code;
}

int run_and_report(int argc, char** argv) {
  try {
    prepare_standard_streams();
    return run(argc, argv);
  } catch (const BrokenPipe&) {
    return kDone;
  } catch (const UsageError& e) {
    return report(kUsage, e.what());
  } catch (const FormatError& e) {
    return report(kFormat, e.what());
  } catch (const DeviceError& e) {
    return report(kDevice, e.what());
  } catch (const std::bad_alloc&) {
    return report(kDevice, "out of memory: use a smaller model, batch or context");
  } catch (const std::exception& e) {
    return report(kFailed, e.what());
  }
}

// Threads that wait for each other spin before they sleep. libgomp's default of some milliseconds is
// ruinous where a core is shared with other programs (a training step took thirty times as long),
// and short spins cost nothing measurable on an idle machine. libgomp reads its environment when it
// is loaded, so the program starts itself once more; if that fails, it just goes on.
void limit_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error && setenv("GOMP_SPINCOUNT", "4000", 1) == 0) execv(self.c_str(), argv);
}

}  // namespace
}  // namespace bitnet

int main(int argc, char** argv) {
  bitnet::limit_spinning(argv);
  return bitnet::run_and_report(argc, argv);
}
