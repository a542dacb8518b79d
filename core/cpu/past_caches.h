// SPDX-License-Identifier: MIT
// Stores that leave no lines in the caches. Between products that stream weights, whatever touches
// a line that is not in the second-level cache (a store, a factor of an output, a residual) costs as
// much time as tens of lines of weights: it waits behind all those that have been asked for. So
// sums are stored this way, and are scaled or added to something in a pass of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace bitnet::cpu {

inline constexpr std::int64_t kLineSums = 16;  // of 4 bytes

// to[i] = from[i], in a job of Stores::past_caches; `to` is aligned to 16 bytes. Whole lines go best.
inline void copy_past_caches(const std::int32_t* from, std::int64_t count, std::int32_t* to) {
  std::int64_t i = 0;
#if defined(__SSE2__)
  for (; i + 4 <= count; i += 4) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
#endif
  std::copy(from + i, from + count, to + i);
}

}  // namespace bitnet::cpu
