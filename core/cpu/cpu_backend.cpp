// SPDX-License-Identifier: MIT
// The choice of the instruction set, and memory.
#include "core/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "core/backend/element_checks.h"
#include "core/base/machine.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/cpu_isa.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/gradient_kernels.h"
#include "core/cpu/head_kernels.h"
#include "core/cpu/integer_kernels.h"
#include "core/cpu/panel_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet {
namespace cpu {
namespace {

constexpr std::array kBestFirst = {Isa::amx, Isa::avx512vnni, Isa::avx2, Isa::neon, Isa::scalar};
constexpr const char* kIsaVariable = "BITNET_CPU_ISA";
constexpr std::int64_t kAlignment = kApart;   // of storage; no less than the widest vector
constexpr std::int64_t kCopyBytes = 1 << 18;  // of a task that copies or zeroes

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

// Zero-filled. calloc gets large blocks from the system, which fills a page when it is first
// touched: what is never used takes no memory and no time. Large pages are not asked for here: see
// take_large_pages(). Linux grants memory that it does not have and kills the process that touches
// it, so what the machine cannot hold is refused here.
Storage aligned_storage(std::int64_t bytes) {
  BITNET_CHECK(bytes >= 0, "cannot allocate {} bytes", bytes);
  if (bytes > physical_memory()) refuse_memory(bytes, bytes_in_use);
  const std::int64_t rounded = (bytes / kAlignment + 2) * kAlignment;
  const std::int64_t before = bytes_in_use.fetch_add(rounded);
  void* memory = before + rounded > physical_memory()
                     ? nullptr
                     : std::calloc(static_cast<std::size_t>(rounded), 1);
  if (memory == nullptr) {
    bytes_in_use -= rounded;
    refuse_memory(bytes, before);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const auto padding = static_cast<std::size_t>(-address % kAlignment);
  return Storage(static_cast<std::byte*>(memory) + padding, [memory, rounded](std::byte*) {
    std::free(memory);
    bytes_in_use -= rounded;
  });
}

void copy_bytes(void* destination, const void* source, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(destination, source, static_cast<std::size_t>(bytes));
}

}  // namespace

void widen_bf16(const std::uint16_t* from, std::int64_t count, float* to) {
  constexpr std::int64_t kLine = 32, kAhead = 4096;  // elements: 64 bytes, 8 KB
  const auto widen = [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t i = first; i < end; ++i) {
      to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i]) << 16);
    }
  };
  std::int64_t i = 0;
  for (; i + kLine <= count; i += kLine) {
    __builtin_prefetch(from + i + kAhead, 0, 2);
    widen(i, i + kLine);
  }
  widen(i, count);
}

void* Scratch::reserve(std::int64_t bytes) {
  if (bytes > bytes_ || !storage_) {
    storage_.reset();
    storage_ = aligned_storage(bytes);
    bytes_ = bytes;
  }
  return storage_.get();
}

CpuBackend::CpuBackend(int threads, const std::string& isa) : issued_team_(threads) {
  const Isa chosen = choose_isa(isa);
  isa_ = to_string(chosen);
  integer_ = integer_kernels(chosen);
  float_ = float_kernels(chosen);
  panel_ = panel_kernels(chosen);
  gradient_ = gradient_kernels(chosen);
  head_ = head_kernels(chosen);
  streaming_cache_ = prefetches_streams_itself()
                         ? cache_bytes(3) * std::clamp(cache_count(3), 1, issued_team_.size())
                         : 0;
}

std::int64_t CpuBackend::stream_ahead() const {
  if (record_ == nullptr || streaming_cache_ == 0) return kStreamAhead;
  // What stays in the third-level caches is read quicker with prefetching everywhere, there further
  // ahead.
  return record_->read_ahead().bytes() > streaming_cache_ ? 0 : 2 * kStreamAhead;
}

const ThreadTeam& CpuBackend::team() {
  if (record_ != nullptr) record_->give_up();
  return issued_team_;
}

std::string CpuBackend::detail() const {
  return fmt::format("{}, {} thread{}", isa_, issued_team_.size(),
                     issued_team_.size() == 1 ? "" : "s");
}

std::int64_t CpuBackend::memory_bytes() const { return physical_memory(); }

Storage CpuBackend::allocate(std::int64_t bytes) { return aligned_storage(bytes); }

Tensor CpuBackend::make_streamed_tensor(DType dtype, Shape shape) {
  Tensor tensor = make_tensor(dtype, shape);
  take_large_pages(tensor.view().raw(), tensor.bytes());
  return tensor;
}

Tensor CpuBackend::adopt(std::shared_ptr<const void> owner, const void* bytes, DType dtype,
                         Shape shape) {
  if (reinterpret_cast<std::uintptr_t>(bytes) % static_cast<std::uintptr_t>(size_of(dtype)) != 0) {
    return Backend::adopt(std::move(owner), bytes, dtype, shape);
  }
  auto* const memory = const_cast<std::byte*>(static_cast<const std::byte*>(bytes));
  return Tensor(Storage(memory, [owner = std::move(owner)](std::byte*) {}), dtype, shape);
}

void CpuBackend::copy_from_host(const void* source, TensorView destination) {
  BITNET_CHECK(record_ == nullptr, "a copy from the host within repeat()");
  copy_bytes(destination.raw(), source, destination.bytes());
}

void CpuBackend::copy_to_host(ConstTensorView source, void* destination) {
  BITNET_CHECK(record_ == nullptr, "a copy to the host within repeat()");
  copy_bytes(destination, source.raw(), source.bytes());
}

void CpuBackend::copy(ConstTensorView source, TensorView destination) {
  BITNET_CHECK(source.dtype() == destination.dtype() && source.elements() == destination.elements(),
               "cannot copy {} {} to {} {}", bitnet::to_string(source.dtype()),
               source.shape().to_string(), bitnet::to_string(destination.dtype()),
               destination.shape().to_string());
  issue([this, from = source.raw(), to = destination.raw(), bytes = source.bytes()](std::int64_t) {
    run_stretches(issued_team_, bytes, kCopyBytes, [&](std::int64_t first, std::int64_t count) {
      copy_bytes(to + first, from + first, count);
    });
  });
}

void CpuBackend::zero(TensorView x) {
  run_stretches(team(), x.bytes(), kCopyBytes, [&](std::int64_t first, std::int64_t count) {
    std::memset(x.raw() + first, 0, static_cast<std::size_t>(count));
  });
}

void CpuBackend::convert(ConstTensorView x, TensorView y) {
  check_convert(x, y);
  const bool narrows = x.dtype() == DType::f32;
  const std::byte* from = x.raw();
  std::byte* to = y.raw();
  run_stretches(team(), x.elements(), kStretch, [&](std::int64_t first, std::int64_t count) {
    if (narrows) {
      float_->narrow(reinterpret_cast<const float*>(from) + first,
                     reinterpret_cast<std::uint16_t*>(to) + first, count);
      return;
    }
    const auto* halves = reinterpret_cast<const std::uint16_t*>(from) + first;
    float* const floats = reinterpret_cast<float*>(to) + first;
    if (x.dtype() == DType::bf16) {
      widen_bf16(halves, count, floats);
    } else {
      float_->widen(halves, floats, count);
    }
  });
}

// Without a position there is no record: what is repeated then are batches, whose products are
// bound by arithmetic.
void CpuBackend::repeat(std::unique_ptr<RecordedOperations>& record,
                        std::optional<std::int64_t> position,
                        const std::function<void()>& operations) {
  if (!position) return operations();
  if (record == nullptr) record = std::make_unique<TokenRecord>(issued_team_.size());
  record_ = static_cast<TokenRecord*>(record.get());
  const auto leave = [this] { record_ = nullptr; };
  try {
    issued_team_.stay_awake([&] { record_->run(*position, operations); },
                            [this](int thread) { return record_->read_ahead().step(thread); });
  } catch (...) {
    record_->abandon();
    leave();
    throw;
  }
  leave();
}

}  // namespace cpu

std::vector<std::string> available_cpu_isas() {
  std::vector<std::string> names;
  for (const cpu::Isa isa : cpu::kBestFirst) {
    if (cpu::isa_available(isa)) names.emplace_back(cpu::to_string(isa));
  }
  return names;
}

std::string chosen_cpu_isa(const std::string& isa) { return cpu::to_string(cpu::choose_isa(isa)); }

std::unique_ptr<Backend> make_cpu_backend(int threads, const std::string& isa) {
  return std::make_unique<cpu::CpuBackend>(threads, isa);
}

}  // namespace bitnet
