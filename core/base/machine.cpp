// SPDX-License-Identifier: MIT
#include "core/base/machine.h"

#include <unistd.h>

namespace bitnet {

std::int64_t physical_memory() {
  static const std::int64_t bytes =
      std::int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGE_SIZE);
  return bytes;
}

}  // namespace bitnet
