// SPDX-License-Identifier: MIT
// The choice of the instruction set, and memory.
#include "core/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "core/base/machine.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/cpu_isa.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/integer_kernels.h"

namespace bitnet {
namespace cpu {
namespace {

constexpr std::array kBestFirst = {Isa::avx512vnni, Isa::avx2, Isa::neon, Isa::scalar};
constexpr const char* kIsaVariable = "BITNET_CPU_ISA";
constexpr std::int64_t kAlignment = 64;  // a cache line, and the widest vector

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// `source` says in messages where the name came from.
Isa parse_isa(const std::string& name, const std::string& source) {
  for (const Isa isa : kBestFirst) {
    if (name != to_string(isa)) continue;
    if (isa_available(isa)) return isa;
    throw UsageError(fmt::format("{} asks for '{}', which this processor cannot run; available: {}",
                                 source, name, joined(available_cpu_isas())));
  }
  throw UsageError(fmt::format("{} asks for the unknown instruction set '{}'; available: {}",
                               source, name, joined(available_cpu_isas())));
}

Isa choose_isa(const std::string& name) {
  if (!name.empty()) return parse_isa(name, "the CPU backend's caller");
  const char* forced = std::getenv(kIsaVariable);
  if (forced != nullptr && *forced != '\0') {
    return parse_isa(forced, std::string("the environment variable ") + kIsaVariable);
  }
  return *std::find_if(kBestFirst.begin(), kBestFirst.end(), isa_available);
}

// Bytes of all storage that lives. The process's and not a backend's, as the memory is.
std::atomic<std::int64_t> bytes_in_use = 0;

[[noreturn]] void refuse_memory(std::int64_t bytes, std::int64_t in_use) {
  constexpr double kMiB = 1 << 20;
  throw DeviceError(
      fmt::format("not enough memory for {:.1f} MiB more: {:.1f} MiB are in use and the machine "
                  "has {:.1f} MiB; choose a smaller model, batch or sequence length",
                  static_cast<double>(bytes) / kMiB, static_cast<double>(in_use) / kMiB,
                  static_cast<double>(physical_memory()) / kMiB));
}

// Uninitialised. Linux grants memory that it does not have and kills the process that touches it,
// so what the machine cannot hold is refused here.
Storage aligned_storage(std::int64_t bytes) {
  BITNET_CHECK(bytes >= 0, "cannot allocate {} bytes", bytes);
  if (bytes > physical_memory()) refuse_memory(bytes, bytes_in_use);
  const std::int64_t rounded = (bytes / kAlignment + 1) * kAlignment;
  const std::int64_t before = bytes_in_use.fetch_add(rounded);
  void* memory = before + rounded > physical_memory()
                     ? nullptr
                     : std::aligned_alloc(kAlignment, static_cast<std::size_t>(rounded));
  if (memory == nullptr) {
    bytes_in_use -= rounded;
    refuse_memory(bytes, before);
  }
  return Storage(static_cast<std::byte*>(memory), [rounded](std::byte* p) {
    std::free(p);
    bytes_in_use -= rounded;
  });
}

void copy_bytes(void* destination, const void* source, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(destination, source, static_cast<std::size_t>(bytes));
}

}  // namespace

void* Scratch::reserve(std::int64_t bytes) {
  if (bytes > bytes_ || !storage_) {
    storage_.reset();
    storage_ = aligned_storage(bytes);
    bytes_ = bytes;
  }
  return storage_.get();
}

CpuBackend::CpuBackend(int threads, const std::string& isa) : team_(threads) {
  const Isa chosen = choose_isa(isa);
  isa_ = to_string(chosen);
  integer_ = integer_kernels(chosen);
  float_ = float_kernels(chosen);
}

std::string CpuBackend::detail() const {
  return fmt::format("{}, {} thread{}", isa_, team_.size(), team_.size() == 1 ? "" : "s");
}

Storage CpuBackend::allocate(std::int64_t bytes) {
  Storage storage = aligned_storage(bytes);
  std::memset(storage.get(), 0, static_cast<std::size_t>(bytes));
  return storage;
}

void CpuBackend::copy_from_host(const void* source, TensorView destination) {
  copy_bytes(destination.raw(), source, destination.bytes());
}

void CpuBackend::copy_to_host(ConstTensorView source, void* destination) {
  copy_bytes(destination, source.raw(), source.bytes());
}

void CpuBackend::copy(ConstTensorView source, TensorView destination) {
  BITNET_CHECK(source.dtype() == destination.dtype() && source.elements() == destination.elements(),
               "cannot copy {} {} to {} {}", bitnet::to_string(source.dtype()),
               source.shape().to_string(), bitnet::to_string(destination.dtype()),
               destination.shape().to_string());
  copy_bytes(destination.raw(), source.raw(), source.bytes());
}

void CpuBackend::zero(TensorView x) {
  if (x.bytes() > 0) std::memset(x.raw(), 0, static_cast<std::size_t>(x.bytes()));
}

}  // namespace cpu

std::vector<std::string> available_cpu_isas() {
  std::vector<std::string> names;
  for (const cpu::Isa isa : cpu::kBestFirst) {
    if (cpu::isa_available(isa)) names.emplace_back(cpu::to_string(isa));
  }
  return names;
}

std::unique_ptr<Backend> make_cpu_backend(int threads, const std::string& isa) {
  return std::make_unique<cpu::CpuBackend>(threads, isa);
}

}  // namespace bitnet
