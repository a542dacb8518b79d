// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"

namespace bitnet {

void AppContext::add_device_options(CLI::App& command) {
  command
      .add_option("--threads", threads_,
                  "Threads to compute with; 0: one for each processor. Changes no result")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command
      .add_option("--device", device_,
                  "cpu, cuda, or auto: cuda if a GPU can be used (see bitnet devices)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
}

Backend& AppContext::backend() {
  if (backend_ == nullptr) {
    const bool wants_cuda =
        device_ == "cuda" || (device_ == "auto" && why_no_cuda(find_cuda_devices()).empty());
    if (wants_cuda) {
      try {
        backend_ = make_cuda_backend();
      } catch (const DeviceError& e) {
        throw DeviceError(fmt::format("--device {}: {}; use --device cpu", device_, e.what()));
      }
    } else {
      backend_ = make_cpu_backend(threads_);
    }
  }
  return *backend_;
}

}  // namespace bitnet
