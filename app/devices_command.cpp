// SPDX-License-Identifier: MIT
// bitnet devices: what --device can mean on this machine, and why not.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/standard_streams.h"
#include "core/base/machine.h"
#include "core/base/parallel.h"
#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"

namespace bitnet {
namespace {

using nlohmann::ordered_json;

constexpr double kGiB = 1024.0 * 1024 * 1024;

struct Found {
  std::string processor, isa, auto_device;
  int threads;
  std::int64_t memory_bytes;
  CudaDevices cuda;
  std::string why_no_cuda, why_no_cublaslt;  // the latter only if there is a GPU
};

Found find_devices() {
  Found found{.processor = processor_name(),
              .isa = chosen_cpu_isa(),
              .auto_device = "cpu",
              .threads = ThreadTeam(0).size(),
              .memory_bytes = physical_memory(),
              .cuda = find_cuda_devices(),
              .why_no_cuda = {},
              .why_no_cublaslt = {}};
  found.why_no_cuda = why_no_cuda(found.cuda);
  if (found.why_no_cuda.empty()) {
    found.auto_device = "cuda";
    found.why_no_cublaslt = why_no_cublaslt();
  }
  return found;
}

ordered_json null_if_empty(const std::string& text) {
  return text.empty() ? ordered_json() : ordered_json(text);
}

void print_json(const Found& found) {
  ordered_json object;
  object["auto"] = found.auto_device;
  object["cpu"] = {{"name", found.processor},
                   {"isa", found.isa},
                   {"threads", found.threads},
                   {"memory_bytes", found.memory_bytes}};
  ordered_json devices = ordered_json::array();
  for (const CudaDevice& d : found.cuda.devices)
    devices.push_back({{"index", d.index},
                       {"name", d.name},
                       {"architecture", d.architecture},
                       {"multiprocessors", d.multiprocessors},
                       {"memory_bytes", d.memory_bytes},
                       {"unusable", null_if_empty(d.unusable)}});
  object["cuda"] = {{"unusable", null_if_empty(found.why_no_cuda)},
                    {"driver", null_if_empty(found.cuda.driver)},
                    {"runtime", null_if_empty(found.cuda.runtime)},
                    {"cublaslt_unusable", null_if_empty(found.why_no_cublaslt)},
                    {"devices", devices}};
  write_stdout(object.dump(2) + "\n");
}

void print_lines(const Found& found) {
  std::string text = fmt::format("cpu    {}, {}, {} thread{}, {:.1f} GiB\n", found.processor,
                                 found.isa, found.threads, found.threads == 1 ? "" : "s",
                                 static_cast<double>(found.memory_bytes) / kGiB);
  for (const CudaDevice& d : found.cuda.devices) {
    text +=
        fmt::format("cuda   GPU {}: {}, {}, {} multiprocessors, {:.1f} GiB", d.index, d.name,
                    d.architecture, d.multiprocessors, static_cast<double>(d.memory_bytes) / kGiB);
    if (!d.unusable.empty()) text += ": not usable, " + d.unusable;
    text += '\n';
  }
  if (!found.why_no_cuda.empty()) text += fmt::format("cuda   not usable: {}\n", found.why_no_cuda);
  if (!found.why_no_cublaslt.empty())
    text += fmt::format("cuda   without cuBLASLt, by our own kernels: {}\n", found.why_no_cublaslt);
  text += fmt::format("auto   {}\n", found.auto_device);
  write_stdout(text);
}

}  // namespace

void add_devices_command(CLI::App& program, AppContext&) {
  CLI::App* command = program.add_subcommand(
      "devices", "List what --device can use on this machine, and why something is not usable");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print one JSON object");
  command->callback([json] {
    const Found found = find_devices();
    if (*json)
      print_json(found);
    else
      print_lines(found);
  });
}

}  // namespace bitnet
