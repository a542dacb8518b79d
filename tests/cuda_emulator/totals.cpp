// SPDX-License-Identifier: MIT
// Says at the end of a test program how much the emulator has executed. With the environment
// variable BITNET_EMULATOR_TOTALS it also writes that to a file, with the place of each kernel in
// the program, for scripts/check_machine_code.py.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/cuda_emulator/emulator.h"
#include "tests/support/catch.h"

// Kernels are static functions, of which a running program knows no names: their distance from this
// symbol finds them in the program's table of symbols.
extern "C" {
extern const char bitnet_address_anchor;
const char bitnet_address_anchor = 0;
}

namespace bitnet::test {
namespace {

#ifdef BITNET_CATCH2_V2
using Listener = Catch::TestEventListenerBase;
#else
using Listener = Catch::EventListenerBase;
#endif

class EmulatorTotals : public Listener {
 public:
  using Listener::Listener;

  void testCaseStarting(const Catch::TestCaseInfo&) override {
    launches_before_ = emulator::statistics().launches;
  }
  void testCaseEnded(const Catch::TestCaseStats&) override {
    if (emulator::statistics().launches != launches_before_) ++kernel_cases_;
  }
  void testRunEnded(const Catch::TestRunStats& run) override {
    if (kernel_cases_ == 0) return;
    std::ostringstream line;
    line << kernel_cases_ << " of " << run.totals.testCases.total()
         << " test cases executed CUDA kernels under the emulator: "
         << emulator::statistics().launches << " launches of "
         << emulator::executed_kernels().size() << " kernels, " << emulator::statistics().threads
         << " CUDA threads";
    std::printf("%s\n", line.str().c_str());
    if (const char* file = std::getenv("BITNET_EMULATOR_TOTALS")) write(file, line.str());
  }

 private:
  static void write(const char* file, const std::string& totals) {
    std::ofstream out(file);
    out << "totals " << totals << "\n"
        << "program " << std::filesystem::read_symlink("/proc/self/exe").string() << "\n";
    for (const auto& [kernel, use] : emulator::executed_kernels()) {
      // Modulo 2^64: a kernel may lie before the anchor.
      const auto distance = reinterpret_cast<std::uintptr_t>(kernel) -
                            reinterpret_cast<std::uintptr_t>(&bitnet_address_anchor);
      out << "kernel " << distance << " " << use.launches << " " << use.dynamic_shared_bytes
          << "\n";
    }
  }

  std::uint64_t launches_before_ = 0;
  int kernel_cases_ = 0;
};

CATCH_REGISTER_LISTENER(EmulatorTotals)

}  // namespace
}  // namespace bitnet::test
