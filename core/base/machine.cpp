// SPDX-License-Identifier: MIT
#include "core/base/machine.h"

#include <malloc.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <set>
#include <span>

namespace bitnet {
namespace {

// The text after "KEY<blanks>:<blanks>" in a file of such lines; "" when there is none.
std::string value_of(const char* file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const auto colon = line.find_first_not_of(" \t", key.size());
    if (colon == std::string::npos || line[colon] != ':') continue;
    const auto value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

std::string first_word(const std::string& file) {
  std::string word;
  std::ifstream(file) >> word;
  return word;
}

// Where the system describes the data or unified cache of a level that a processor sees; "" when it
// does not.
std::string cache_folder(int processor, int level) {
  const std::string caches =
      "/sys/devices/system/cpu/cpu" + std::to_string(processor) + "/cache/index";
  for (int index = 0; index < 8; ++index) {
    const std::string cache = caches + std::to_string(index);
    if (first_word(cache + "/level") == std::to_string(level) &&
        first_word(cache + "/type") != "Instruction")
      return cache;
  }
  return "";
}

// The whole large pages within the memory.
std::span<char> whole_pages(void* memory, std::int64_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  const auto page = static_cast<std::uintptr_t>(kLargePage);
  const std::uintptr_t first = (begin + page - 1) / page * page,
                       end = (begin + static_cast<std::uintptr_t>(bytes)) / page * page;
  if (first >= end) return {};
  return {static_cast<char*>(memory) + (first - begin), end - first};
}

}  // namespace

std::int64_t physical_memory() {
  static const std::int64_t bytes =
      std::int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGE_SIZE);
  return bytes;
}

void prefer_large_pages(void* memory, std::int64_t bytes) {
  const std::span<char> pages = whole_pages(memory, bytes);
  if (!pages.empty()) ::madvise(pages.data(), pages.size(), MADV_HUGEPAGE);
}

void take_large_pages(void* memory, std::int64_t bytes) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kSlow{1}, kPatience{10};
  const std::span<char> pages = whole_pages(memory, bytes);
  Clock::duration lost{0};  // in pages that took too long
  for (std::size_t place = 0; place < pages.size() && lost < kPatience; place += kLargePage) {
    char* const page = pages.data() + place;
    const auto before = Clock::now();
    if (::madvise(page, kLargePage, MADV_HUGEPAGE) != 0) return;
    *static_cast<volatile char*>(page) = 0;
    const auto taken = Clock::now() - before;
    if (taken > kSlow) lost += taken;
  }
}

std::string processor_name() {
  for (const char* key : {"model name", "Model", "Hardware"}) {
    const std::string name = value_of("/proc/cpuinfo", key);
    if (!name.empty()) return name;
  }
  return "unknown";
}

std::int64_t cache_bytes(int level) {
  const std::string size = first_word(cache_folder(0, level) + "/size");  // "2048K"
  char* unit = nullptr;
  const std::int64_t count = std::strtoll(size.c_str(), &unit, 10);
  return *unit == 'K' ? count << 10 : *unit == 'M' ? count << 20 : count;
}

int cache_count(int level) {
  cpu_set_t processors;
  if (::sched_getaffinity(0, sizeof processors, &processors) != 0) return 0;
  std::set<std::string> sharers;  // one name for each cache: "0-1"
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (!CPU_ISSET(processor, &processors)) continue;
    const std::string shared = first_word(cache_folder(processor, level) + "/shared_cpu_list");
    if (!shared.empty()) sharers.insert(shared);
  }
  return static_cast<int>(sharers.size());
}

std::int64_t peak_resident_bytes() {
  return std::atoll(value_of("/proc/self/status", "VmHWM").c_str()) * 1024;  // "1234 kB"
}

bool reset_peak_resident_bytes() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
  std::ofstream file("/proc/self/clear_refs");
  file << 5 << std::flush;  // proc(5): "reset the peak resident set size"
  return file.good();
}

}  // namespace bitnet
