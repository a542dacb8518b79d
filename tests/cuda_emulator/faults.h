// SPDX-License-Identifier: MIT
// Turns a memory fault inside a kernel into a kernel failure, and names one in host code that
// touched device memory.
#pragma once

namespace bitnet::emulator {

// Before each kernel and allocation, by the host thread that needs it: a test framework may have
// installed a handler of its own in between.
void catch_faults_of_this_thread();

}  // namespace bitnet::emulator
