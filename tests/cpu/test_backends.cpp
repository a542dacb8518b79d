// SPDX-License-Identifier: MIT
// The CPU backend: every instruction set of this machine, with one thread and with several.
#include "core/cpu/cpu_backend.h"
#include "tests/support/backends.h"
#include "tests/support/threads.h"

namespace bitnet::test {

std::vector<TestBackend> test_backends() {
  std::vector<TestBackend> all;
  for (const int threads : team_sizes({1, 3})) {
    for (const std::string& isa : available_cpu_isas()) {
      TestBackend b;
      b.name =
          "cpu " + isa + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
      b.make = [isa, threads] { return make_cpu_backend(threads, isa); };
      all.push_back(std::move(b));
    }
  }
  return all;
}

}  // namespace bitnet::test
