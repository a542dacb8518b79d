// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

// Sets BITNET_CPU_ISA, and puts back what was there.
class ForcedIsa {
 public:
  explicit ForcedIsa(const std::string& name) {
    if (const char* value = std::getenv(kVariable)) {
      earlier_ = value;
      was_set_ = true;
    }
    setenv(kVariable, name.c_str(), 1);
  }
  ~ForcedIsa() { was_set_ ? setenv(kVariable, earlier_.c_str(), 1) : unsetenv(kVariable); }
  ForcedIsa(const ForcedIsa&) = delete;
  ForcedIsa& operator=(const ForcedIsa&) = delete;

 private:
  static constexpr const char* kVariable = "BITNET_CPU_ISA";
  std::string earlier_;
  bool was_set_ = false;
};

std::string usage_error_of(const std::string& isa) {
  try {
    make_cpu_backend(1, isa);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("every processor can run the scalar kernels, which come last") {
  REQUIRE(!available_cpu_isas().empty());
  CHECK(available_cpu_isas().back() == "scalar");
}

TEST_CASE("the instruction set asked for is the one that runs") {
  for (const std::string& isa : available_cpu_isas()) {
    CHECK(make_cpu_backend(1, isa)->detail() == isa + ", 1 thread");
    CHECK(make_cpu_backend(2, isa)->detail() == isa + ", 2 threads");
    const ForcedIsa forced(isa);
    CHECK(make_cpu_backend(1)->detail() == isa + ", 1 thread");
  }
}

TEST_CASE("without a wish the best instruction set runs, and an argument beats the environment") {
  {
    const ForcedIsa none("");
    CHECK(make_cpu_backend(1)->detail() == available_cpu_isas().front() + ", 1 thread");
  }
  const ForcedIsa forced(available_cpu_isas().front());
  CHECK(make_cpu_backend(1, "scalar")->detail() == "scalar, 1 thread");
}

TEST_CASE("an instruction set that cannot run is refused with the list of those that can") {
  for (const std::string isa : {"sse9", "neon", "avx2", "avx512vnni", "amx"}) {
    const auto available = available_cpu_isas();
    if (std::find(available.begin(), available.end(), isa) != available.end()) continue;
    for (const bool by_environment : {false, true}) {
      std::string message;
      if (by_environment) {
        const ForcedIsa forced(isa);
        message = usage_error_of("");
        CHECK(contains(message, "BITNET_CPU_ISA"));
      } else {
        message = usage_error_of(isa);
      }
      INFO(message);
      CHECK(contains(message, "'" + isa + "'"));
      for (const std::string& name : available) CHECK(contains(message, name));
    }
  }
}

TEST_CASE("backend memory is aligned and zero, and too much of it is a DeviceError") {
  const auto backend = make_cpu_backend(1);
  const Storage storage = backend->allocate(1000);
  CHECK(reinterpret_cast<std::uintptr_t>(storage.get()) % 64 == 0);
  for (int i = 0; i < 1000; ++i) REQUIRE(storage.get()[i] == std::byte{0});
  CHECK(backend->allocate(0) != nullptr);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they abort instead
  CHECK_THROWS_AS(backend->allocate(std::int64_t{1} << 60), DeviceError);
#endif
  CHECK_THROWS_AS(backend->allocate(-1), ContractError);
}

TEST_CASE("copies need the same dtype and number of elements") {
  const auto backend = make_cpu_backend(1);
  Tensor a = backend->make_tensor(DType::f32, {2, 3}), b = backend->make_tensor(DType::f32, {6});
  const float values[6] = {1, 2, 3, 4, 5, 6};
  float back[6] = {};
  backend->copy_from_host(values, a);
  backend->copy(a, b);
  backend->zero(a);
  backend->copy_to_host(b, back);
  CHECK(std::equal(values, values + 6, back));
  CHECK(a.as<float>()[5] == 0.0f);
  CHECK_THROWS_AS(backend->copy(a, backend->make_tensor(DType::f32, {5}).view()), ContractError);
  CHECK_THROWS_AS(backend->copy(a, backend->make_tensor(DType::i32, {6}).view()), ContractError);
}

}  // namespace
}  // namespace bitnet
