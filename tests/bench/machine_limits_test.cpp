// SPDX-License-Identifier: MIT
#include "core/cpu/machine_limits.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/cpu/cpu_backend.h"
#include "core/cpu/limit_kernels.h"
#include "tests/cpu/available_isas.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

constexpr LimitEffort kShort{.repeats = 3, .seconds = 1e-3, .memory_bytes = std::int64_t{1} << 22};

void check(const LimitMeasurement& measurement) {
  CHECK_FALSE(measurement.kernel.empty());
  CHECK(measurement.per_second.size() == 3);
  CHECK(*std::min_element(measurement.per_second.begin(), measurement.per_second.end()) > 0);
}

TEST_CASE("every limit is measured on every instruction set") {
  const std::string isa = GENERATE(from_range(available_cpu_isas()));
  const MachineLimits limits(2, isa, kShort);
  CHECK(limits.isa() == isa);
  CHECK(limits.threads() == 2);
  CHECK(limits.l2_bytes() > 0);
  CHECK(limits.l2_bytes() <= 2 * MachineLimits(1, isa, kShort).l2_bytes());
  check(limits.memory_read());
  check(limits.cache_read(1 << 20));
  check(limits.l2_read());
  check(limits.fp32_fma());
  check(limits.int8_dot());
}

TEST_CASE("an instruction set that is not there is refused") {
  CHECK_THROWS_AS(MachineLimits(1, "z80"), UsageError);
}

// A byte that a read does not reach could change without changing the result.
TEST_CASE("the read kernels read every line of their buffer") {
  const cpu::LimitKernels* kernels =
      cpu::limit_kernels(GENERATE(from_range(test::available_isas())));
  constexpr std::int64_t kBytes = 2 * cpu::kReadBlock;
  const std::unique_ptr<std::uint8_t, decltype(&std::free)> buffer(
      static_cast<std::uint8_t*>(std::aligned_alloc(64, kBytes)), &std::free);
  std::uint8_t* const data = buffer.get();
  for (const cpu::ReadKernel& kernel : kernels->reads) {
    if (kernel.read == nullptr) continue;
    INFO(kernels->name << ": " << kernel.name);
    std::fill(data, data + kBytes, std::uint8_t{0});
    const std::uint64_t before = kernel.read(data, kBytes);
    CHECK(kernel.read(data, kBytes) == before);
    for (std::int64_t place = 0; place < kBytes; place += 17) {
      data[place] = 0x5a;
      CHECK(kernel.read(data, kBytes) != before);
      data[place] = 0;
    }
  }
}

TEST_CASE("the peak of the resident memory counts a buffer, and can be reset") {
  constexpr std::size_t kBytes = 64 << 20;
  {
    const std::vector<std::uint8_t> buffer(kBytes, 1);
    CHECK(peak_resident_bytes() >= std::int64_t{kBytes});
  }
  if (reset_peak_resident_bytes()) {
    const std::int64_t before = peak_resident_bytes();
    const std::vector<std::uint8_t> buffer(kBytes, 1);
    CHECK(peak_resident_bytes() >= before + std::int64_t{kBytes} / 2);
  }
}

}  // namespace
}  // namespace bitnet
