// SPDX-License-Identifier: MIT
#include "core/cpu/machine_limits.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/cpu/cpu_backend.h"
#include "core/cpu/limit_kernels.h"

namespace bitnet {
namespace {

using cpu::ComputeKernel;
using cpu::kReadBlock;
using cpu::ReadKernel;

constexpr std::int64_t kSlice = std::int64_t{4} << 20;      // memory that a task reads
constexpr std::int64_t kUnknownL2 = std::int64_t{1} << 19;  // where the system does not say

template <typename Work>
double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The number of times that `work(times)` must do its thing to take about `seconds`.
template <typename Work>
std::int64_t calibrate(double seconds, const Work& work) {
  for (std::int64_t times = 1;; times *= 4) {
    const double taken = seconds_of([&] { work(times); });
    if (taken < seconds / 8) continue;
    return std::max<std::int64_t>(
        1, static_cast<std::int64_t>(static_cast<double>(times) * seconds / taken));
  }
}

// Written once, so that each page is memory of its own and not the system's one page of zeros.
class Buffer {
 public:
  Buffer(std::int64_t bytes, const ThreadTeam& team)
      : bytes_(tile_count(bytes, kLargePage) * kLargePage),
        data_(static_cast<std::uint8_t*>(
            std::aligned_alloc(kLargePage, static_cast<std::size_t>(bytes_)))) {
    if (data_ == nullptr)
      throw DeviceError(fmt::format("no memory for a buffer of {} bytes to read", bytes_));
    prefer_large_pages(data_.get(), bytes_);
    team.run(tile_count(bytes_, kSlice), [&](std::int64_t slice) {
      std::memset(data_.get() + slice * kSlice, static_cast<int>(1 + slice % 255),
                  static_cast<std::size_t>(std::min(kSlice, bytes_ - slice * kSlice)));
    });
  }
  const std::uint8_t* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::uint8_t* p) const { std::free(p); }
  };
  std::int64_t bytes_;
  std::unique_ptr<std::uint8_t, Free> data_;
};

// The kernels are called through pointers into other files, so their results need no use to keep
// them from being optimised away.
LimitMeasurement measure(const ThreadTeam& team, const LimitEffort& effort,
                         const ComputeKernel (&kernels)[2]) {
  LimitMeasurement best;
  for (const ComputeKernel& kernel : kernels) {
    if (kernel.run == nullptr) continue;
    const std::int64_t rounds = calibrate(effort.seconds, [&](std::int64_t n) { kernel.run(n); });
    const auto all_threads = [&] {
      team.run(team.size(), [&](std::int64_t) { kernel.run(rounds); });
    };
    all_threads();  // the warm-up
    LimitMeasurement measurement{kernel.name, {}};
    const auto operations = static_cast<double>(rounds * kernel.operations * team.size());
    for (int i = 0; i < effort.repeats; ++i)
      measurement.per_second.push_back(operations / seconds_of(all_threads));
    keep_better(best, std::move(measurement));
  }
  return best;
}

}  // namespace

MachineLimits::MachineLimits(int threads, const std::string& isa, const LimitEffort& effort)
    : team_(threads), isa_(chosen_cpu_isa(isa)), effort_(effort), kernels_(nullptr) {
  using cpu::Isa;
  for (const Isa candidate : {Isa::scalar, Isa::neon, Isa::avx2, Isa::avx512vnni, Isa::amx})
    if (isa_ == cpu::to_string(candidate)) kernels_ = cpu::limit_kernels(candidate);
  BITNET_CHECK(kernels_ != nullptr, "there are no limit kernels for '{}'", isa_);
  BITNET_CHECK(effort_.repeats >= 1 && effort_.seconds > 0 && effort_.memory_bytes >= kReadBlock,
               "{} repeats of {} s on {} bytes", effort_.repeats, effort_.seconds,
               effort_.memory_bytes);
}

LimitMeasurement MachineLimits::memory_read() const {
  // A machine with little memory is measured on what it can spare.
  const std::int64_t bytes =
      std::min(effort_.memory_bytes, physical_memory() / 4) / kReadBlock * kReadBlock;
  const Buffer buffer(bytes, team_);
  LimitMeasurement best;
  for (const ReadKernel& kernel : kernels_->reads) {
    if (kernel.read == nullptr) continue;
    LimitMeasurement measurement{kernel.name, {}};
    for (int i = 0; i < effort_.repeats; ++i) {
      const double seconds = seconds_of([&] {
        team_.run(tile_count(bytes, kSlice), [&](std::int64_t slice) {
          kernel.read(buffer.data() + slice * kSlice, std::min(kSlice, bytes - slice * kSlice));
        });
      });
      measurement.per_second.push_back(static_cast<double>(bytes) / seconds);
    }
    keep_better(best, std::move(measurement));
  }
  return best;
}

LimitMeasurement MachineLimits::cache_read(std::int64_t bytes) const {
  const std::int64_t share =
      std::max<std::int64_t>(1, bytes / team_.size() / kReadBlock) * kReadBlock;
  const Buffer buffer(share * team_.size(), team_);
  LimitMeasurement best;
  for (const ReadKernel& kernel : kernels_->reads) {
    if (kernel.read == nullptr) continue;
    const auto read_share = [&](std::int64_t thread, std::int64_t times) {
      for (std::int64_t i = 0; i < times; ++i) kernel.read(buffer.data() + thread * share, share);
    };
    const std::int64_t times =
        calibrate(effort_.seconds, [&](std::int64_t n) { read_share(0, n); });
    const auto all_threads = [&] {
      team_.run(team_.size(), [&](std::int64_t thread) { read_share(thread, times); });
    };
    all_threads();  // the warm-up
    LimitMeasurement measurement{kernel.name, {}};
    for (int i = 0; i < effort_.repeats; ++i)
      measurement.per_second.push_back(static_cast<double>(times * share * team_.size()) /
                                       seconds_of(all_threads));
    keep_better(best, std::move(measurement));
  }
  return best;
}

std::int64_t MachineLimits::l2_bytes() const {
  const std::int64_t of_core = cache_bytes(2);
  const int count = cache_count(2);
  return (of_core > 0 ? of_core : kUnknownL2) *
         (count > 0 ? std::min(count, team_.size()) : team_.size());
}

LimitMeasurement MachineLimits::fp32_fma() const { return measure(team_, effort_, kernels_->fp32); }

LimitMeasurement MachineLimits::int8_dot() const { return measure(team_, effort_, kernels_->int8); }

}  // namespace bitnet
