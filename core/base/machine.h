// SPDX-License-Identifier: MIT
// What the machine has, and what this process takes of it.
#pragma once

#include <cstdint>
#include <string>

namespace bitnet {

// Bytes of physical memory. Asking for more would bring the system's out-of-memory killer instead
// of an error.
std::int64_t physical_memory();

// Large pages (2 MiB on x86) spare address translations: what is larger than any cache is read an
// eighth to a third faster from them. Both calls are wishes that do nothing where the system has no
// such pages. This one is for memory of which all that matters will soon be touched, where it does
// not matter how long that takes.
inline constexpr std::int64_t kLargePage = std::int64_t{2} << 20;
void prefer_large_pages(void* memory, std::int64_t bytes);
// This one is for memory that is about to be written as a whole by something that a user waits for.
// It takes large pages as long as the system has them at hand: where the host of a virtual machine
// takes back free memory, a large page can take it 6 ms, thirty times as long as to clear one.
void take_large_pages(void* memory, std::int64_t bytes);

// As the system calls it, e.g. "AMD Ryzen 7 7840U"; "unknown" where it does not say.
std::string processor_name();

// Bytes of the data or unified cache of a level (1, 2, 3) that the first processor sees; 0 where
// the system does not say. A virtual machine is often told the cache of the whole host.
std::int64_t cache_bytes(int level);

// How many different caches of a level the processors have that this process may run on (siblings
// share one); 0 where the system does not say.
int cache_count(int level);

// The most memory of this process that was resident at one time (VmHWM, which counts the pages of
// mapped files too), since the last reset or since it began. 0 where the system does not say.
std::int64_t peak_resident_bytes();
// Freed memory is given back to the system first. Returns false where the system cannot; the peak
// is then that of the whole process.
bool reset_peak_resident_bytes();

}  // namespace bitnet
