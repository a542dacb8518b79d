// SPDX-License-Identifier: MIT
// The CPU backend refuses memory that the machine does not have, instead of being killed for it.
#include <limits>
#include <string>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

std::string refusal(Backend& backend, std::int64_t bytes) {
  try {
    backend.allocate(bytes);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("more memory than the machine has is refused") {
  const auto backend = make_cpu_backend(1);
  CHECK(refusal(*backend, physical_memory() + 1).find("the machine has") != std::string::npos);
  CHECK(refusal(*backend, std::numeric_limits<std::int64_t>::max()) != "");
  CHECK(refusal(*backend, 1 << 20) == "");
}

TEST_CASE("memory that is in use counts, of every backend, until it is freed") {
  const auto backend = make_cpu_backend(1), other = make_cpu_backend(1);
  const std::int64_t mib = 1 << 20;
  Storage held = other->allocate(8 * mib);
  CHECK(refusal(*backend, physical_memory() - 4 * mib).find("MiB are in use") != std::string::npos);
  const std::string before = refusal(*backend, physical_memory() + 1);
  held.reset();
  CHECK(refusal(*backend, physical_memory() + 1) != before);
}

}  // namespace
}  // namespace bitnet
