// SPDX-License-Identifier: MIT
// A token's position as a kernel's argument: known when the kernel is launched, or, in recorded
// operations (Backend::repeat), read from device memory each time they are issued.
#pragma once

namespace bitnet::cuda {

struct Position {
  const int* base = nullptr;  // device memory, or null for 0
  int offset = 0;             // added to *base
};

}  // namespace bitnet::cuda
