// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "core/cpu/cpu_backend.h"

namespace bitnet {

void AppContext::add_device_options(CLI::App& command) {
  command
      .add_option("--threads", threads_,
                  "Threads to compute with; 0: one for each processor. Changes no result")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command.add_option("--device", device_, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
}

Backend& AppContext::backend() {
  if (backend_ == nullptr) {
    if (device_ == "cuda")
      throw DeviceError(
          "this build has no CUDA backend; use --device cpu (or auto, which takes what there is)");
    backend_ = make_cpu_backend(threads_);
  }
  return *backend_;
}

}  // namespace bitnet
