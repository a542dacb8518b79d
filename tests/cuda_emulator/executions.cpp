// SPDX-License-Identifier: MIT
#include "tests/cuda_emulator/executions.h"

#include <cstdlib>
#include <string_view>

#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/sanitizers.h"
#include "tests/support/catch.h"

namespace bitnet::test {
namespace {

// Whether the environment asks for few executions: each schedule, mode and poison once.
bool few_executions() {
  const char* value = std::getenv("BITNET_EMULATOR_EXECUTIONS");
  return value != nullptr && std::string_view(value) == "few";
}

}  // namespace

void for_each_execution(const std::function<bool(const std::string& execution)>& body) {
  using namespace emulator;
  static constexpr const char* kSchedules[] = {"forward", "reverse", "random", "unfair"};
  static constexpr const char* kCopies[] = {"early", "late", "random"};
  static constexpr const char* kStreams[] = {"lazy", "eager", "random"};
  static constexpr std::uint8_t kPoisons[] = {0xFF,
                                              0x5A};  // -1 and NaN; large, and valid as a float
  reset();
  std::uint64_t number = 0;
  bool more = true;
  const bool few = few_executions() || kThreadSanitizer;
  // ThreadSanitizer finds a race in any execution, slowly: copies that are early, then late will do.
  const std::size_t schedules = kThreadSanitizer ? 2 : 4;
  for (std::size_t s = 0; s < schedules && more; ++s) {
    for (std::size_t c = 0; c < 3 && more; ++c) {
      for (std::size_t p = 0; p < 2 && more; ++p) {
        if (few && (c != s % 3 || p != s / 2)) continue;
        const std::size_t streams = (s + c + p) % 3;
        config().schedule = static_cast<Schedule>(s);
        config().copies = static_cast<CopyMode>(c);
        config().streams = static_cast<StreamMode>(streams);
        config().poison = kPoisons[p];
        config().alignment = 16;  // the least that kernels may count on, so that overruns are short
        config().seed = ++number;
        more = body(std::string("schedule ") + kSchedules[s] + ", copies " + kCopies[c] +
                    ", streams " + kStreams[streams] + ", poison " + std::to_string(kPoisons[p]));
        reset();
      }
    }
  }
}

void in_each_execution(const std::function<void()>& body) {
  for_each_execution([&](const std::string& execution) {
    INFO(execution);
    body();
    CHECK(emulator::reset() == 0);  // every byte was freed
    return true;
  });
}

}  // namespace bitnet::test
