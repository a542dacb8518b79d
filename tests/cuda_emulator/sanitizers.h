// SPDX-License-Identifier: MIT
// What the emulator must tell AddressSanitizer and ThreadSanitizer, as functions that do nothing in
// an ordinary build. The emulator's own sources are compiled without -fsanitize=thread
// (CMakeLists.txt), so that only kernels and tests are watched; BITNET_THREAD_SANITIZER says that
// the rest of the program is.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef BITNET_THREAD_SANITIZER
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace bitnet::emulator {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
inline void forbid_memory(const void* from, std::size_t bytes) {
  __asan_poison_memory_region(from, bytes);
}
inline void allow_memory(const void* from, std::size_t bytes) {
  __asan_unpoison_memory_region(from, bytes);
}
#else
inline constexpr bool kAddressSanitizer = false;
inline void forbid_memory(const void*, std::size_t) {}
inline void allow_memory(const void*, std::size_t) {}
#endif

// "Everything before release(token) happens before everything after a later acquire(token)."
#ifdef BITNET_THREAD_SANITIZER
inline constexpr bool kThreadSanitizer = true;
inline void acquire_order(void* token) { __tsan_acquire(token); }
inline void release_order(void* token) { __tsan_release(token); }

// The emulator's book-keeping is not part of the program under test. (Its inline library functions
// may be the copies of an instrumented file.)
class UnwatchedScope {
 public:
  UnwatchedScope() { begin(); }
  ~UnwatchedScope() { end(); }
  UnwatchedScope(const UnwatchedScope&) = delete;
  UnwatchedScope& operator=(const UnwatchedScope&) = delete;

  static void begin() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  static void end() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};
#else
inline constexpr bool kThreadSanitizer = false;
inline void acquire_order(void*) {}
inline void release_order(void*) {}
class UnwatchedScope {
 public:
  UnwatchedScope() {}
  ~UnwatchedScope() {}
  UnwatchedScope(const UnwatchedScope&) = delete;
  UnwatchedScope& operator=(const UnwatchedScope&) = delete;
  static void begin() {}
  static void end() {}
};
#endif

// The reverse, around the part of an emulator call that acts for the kernel: a copy, a product.
class WatchedScope {
 public:
  WatchedScope() { UnwatchedScope::end(); }
  ~WatchedScope() { UnwatchedScope::begin(); }
  WatchedScope(const WatchedScope&) = delete;
  WatchedScope& operator=(const WatchedScope&) = delete;
};

}  // namespace bitnet::emulator
