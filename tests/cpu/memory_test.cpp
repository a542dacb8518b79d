// SPDX-License-Identifier: MIT
// The CPU backend's memory: what is allocated, and what is borrowed. More than the machine has is
// refused, instead of the program being killed for it.
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

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

TEST_CASE("memory that is aligned to an element is adopted in place, and kept alive") {
  const auto backend = make_cpu_backend(1);
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  const std::weak_ptr<std::vector<float>> watch = owner;
  const float* const bytes = owner->data();
  {
    const Tensor adopted = backend->adopt(owner, bytes, DType::f32, {2, 2});
    owner.reset();
    CHECK(adopted.view().raw() == reinterpret_cast<const std::byte*>(bytes));
    CHECK(test::floats_of(*backend, adopted) == std::vector<float>{1, 2, 3, 4});
    CHECK(!watch.expired());
  }
  CHECK(watch.expired());
}

TEST_CASE("memory that is not aligned to an element is copied") {
  const auto backend = make_cpu_backend(1);
  const std::vector<float> values = {1, 2, 3};
  const auto owner = std::make_shared<std::vector<std::byte>>(13);
  const auto shift = reinterpret_cast<std::uintptr_t>(owner->data()) % 4 == 0 ? 1 : 0;
  std::memcpy(owner->data() + shift, values.data(), 12);
  const Tensor copied = backend->adopt(owner, owner->data() + shift, DType::f32, {3});
  CHECK(copied.view().raw() != owner->data() + shift);
  CHECK(owner.use_count() == 1);
  CHECK(test::floats_of(*backend, copied) == values);
}

TEST_CASE("allocated memory is zero, aligned to 64 bytes, and again so after use") {
  const auto backend = make_cpu_backend(1);
  for (const std::int64_t bytes : {1, 64, 1000, 300'000, 40'000'000}) {
    for (int repeat = 0; repeat < 2; ++repeat) {
      const Storage storage = backend->allocate(bytes);
      CHECK(reinterpret_cast<std::uintptr_t>(storage.get()) % 64 == 0);
      const std::span<std::byte> all(storage.get(), static_cast<std::size_t>(bytes));
      bool zero = true;
      for (std::size_t i = 0; i < all.size(); i += 61) {
        zero = zero && all[i] == std::byte{0};
        all[i] = std::byte{1};
      }
      CHECK(zero);
    }
  }
}

}  // namespace
}  // namespace bitnet
