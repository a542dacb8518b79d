// SPDX-License-Identifier: MIT
// Runs the tests on this machine's GPU; exits 4, as bitnet does, where there is none to use.
#define CATCH_CONFIG_RUNNER
#include <cstdio>
#include <string_view>

#include "cuda/cuda_backend.h"
#include "tests/support/catch.h"

int main(int argc, char** argv) {
  // A list needs no GPU, and tells whether the program has two cases of one name.
  if (argc > 1 && std::string_view(argv[1]).starts_with("--list"))
    return Catch::Session().run(argc, argv);
  const std::string reason = bitnet::why_no_cuda(bitnet::find_cuda_devices());
  if (!reason.empty()) {
    std::fprintf(stderr, "bitnet_gpu_tests: no usable GPU: %s\n", reason.c_str());
    return 4;
  }
  // Some cases look into the emulator, or make it a machine without a GPU.
  const char* all_but_those[] = {argv[0], "~[emulator]", nullptr};
  return argc > 1 ? Catch::Session().run(argc, argv) : Catch::Session().run(2, all_but_those);
}
