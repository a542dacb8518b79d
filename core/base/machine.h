// SPDX-License-Identifier: MIT
// What the machine has.
#pragma once

#include <cstdint>

namespace bitnet {

// Bytes of physical memory. Asking for more would bring the system's out-of-memory killer instead
// of an error.
std::int64_t physical_memory();

}  // namespace bitnet
