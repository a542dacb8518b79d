// SPDX-License-Identifier: MIT
// How often this process has called operator new.
#pragma once

#include <cstdint>

namespace bitnet::test {

// Always 0 under a sanitizer, which needs operator new for itself.
std::int64_t heap_allocations();

}  // namespace bitnet::test
