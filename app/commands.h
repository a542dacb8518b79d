// SPDX-License-Identifier: MIT
// What the subcommands share, and the list of them. Each *_command.cpp declares its options and
// runs in their callback.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "core/backend/backend.h"

namespace CLI {
class App;
}

namespace bitnet {

// One run of the program: the device asked for, and what the process will return.
class AppContext {
 public:
  // Adds --threads and --device to a subcommand that computes.
  void add_device_options(CLI::App& command);

  // The device of --device with the threads of --threads, made at the first call. Throws
  // DeviceError.
  Backend& backend();

  // When this object was made, before the command line was read: generate's time to the first
  // token counts from here.
  const std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();

  int threads() const { return threads_; }  // of --threads; 0: one for each processor

  // 130 after an interrupt that was obeyed; errors are thrown, not set here.
  int exit_code = 0;

 private:
  int threads_ = 0;
  std::string device_ = "auto";
  std::unique_ptr<Backend> backend_;
};

// Each adds its subcommand to the program. The command runs in the subcommand's callback; it
// reports failure by exceptions of core/base/error.h, which main() turns into one line on stderr
// and an exit code.
void add_train_command(CLI::App& program, AppContext& context);
void add_eval_command(CLI::App& program, AppContext& context);
void add_generate_command(CLI::App& program, AppContext& context);
void add_quantize_command(CLI::App& program, AppContext& context);
void add_import_command(CLI::App& program, AppContext& context);
void add_export_command(CLI::App& program, AppContext& context);
void add_tokenize_command(CLI::App& program, AppContext& context);
void add_inspect_command(CLI::App& program, AppContext& context);
void add_bench_command(CLI::App& program, AppContext& context);
void add_devices_command(CLI::App& program, AppContext& context);

}  // namespace bitnet
