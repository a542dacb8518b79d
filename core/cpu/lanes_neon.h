// SPDX-License-Identifier: MIT
// 16 fp32 lanes in four 128-bit registers. Included by float_neon.cpp alone; the anonymous
// namespace keeps this code in that file.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace bitnet::cpu {
namespace {

struct Lanes {
  float32x4_t a, b, c, d;  // lanes 0 .. 3, 4 .. 7, 8 .. 11, 12 .. 15
};

constexpr int kTileRows = 3, kTileOutputs = 2;  // of linear: 24 registers of accumulators
// Of a product: 24 registers of accumulators. The rows that go with a vector.
constexpr int kGroupVectors = 1;
constexpr int kGroupRows[kGroupVectors] = {6};

// The first `count` lanes of a row's end, count in 1 .. 15.
struct First {
  int count;
};
struct All {};

inline Lanes set1(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
inline Lanes load(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
inline void store(float* p, Lanes x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
inline Lanes load(const float* p, All, Lanes) { return load(p); }
inline Lanes load(const float* p, First part, Lanes fill) {
  float lanes[16];
  store(lanes, fill);
  for (int i = 0; i < part.count; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store(float* p, All, Lanes x) { store(p, x); }
inline void store(float* p, First part, Lanes x) {
  float lanes[16];
  store(lanes, x);
  for (int i = 0; i < part.count; ++i) p[i] = lanes[i];
}
inline uint32x4_t first_lanes(int count) {  // all ones in the first `count` of four lanes
  const std::int32_t lanes[4] = {0, 1, 2, 3};
  return vcgtq_s32(vdupq_n_s32(count), vld1q_s32(lanes));
}
inline Lanes blend_first(First part, Lanes first, Lanes rest) {
  return {vbslq_f32(first_lanes(part.count), first.a, rest.a),
          vbslq_f32(first_lanes(part.count - 4), first.b, rest.b),
          vbslq_f32(first_lanes(part.count - 8), first.c, rest.c),
          vbslq_f32(first_lanes(part.count - 12), first.d, rest.d)};
}

// fp16, widened exactly; narrowed to nearest even.
inline float32x4_t load4(const std::uint16_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
inline void store4(std::uint16_t* p, float32x4_t x) {
  vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}
inline Lanes load(const std::uint16_t* p) {
  return {load4(p), load4(p + 4), load4(p + 8), load4(p + 12)};
}
inline void store(std::uint16_t* p, Lanes x) {
  store4(p, x.a);
  store4(p + 4, x.b);
  store4(p + 8, x.c);
  store4(p + 12, x.d);
}

inline Lanes operator+(Lanes x, Lanes y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
inline Lanes operator-(Lanes x, Lanes y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
inline Lanes operator*(Lanes x, Lanes y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
inline Lanes operator/(Lanes x, Lanes y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
inline Lanes fma(Lanes x, Lanes y, Lanes z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
          vfmaq_f32(z.d, x.d, y.d)};
}
inline Lanes sqrt(Lanes x) {
  return {vsqrtq_f32(x.a), vsqrtq_f32(x.b), vsqrtq_f32(x.c), vsqrtq_f32(x.d)};
}

// vmaxq_f32 would return NaN where x86 returns y: compare and select instead.
inline float32x4_t max(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
inline float32x4_t min(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
inline Lanes max(Lanes x, Lanes y) {  // x > y ? x : y
  return {max(x.a, y.a), max(x.b, y.b), max(x.c, y.c), max(x.d, y.d)};
}
inline Lanes min(Lanes x, Lanes y) {  // x < y ? x : y
  return {min(x.a, y.a), min(x.b, y.b), min(x.c, y.c), min(x.d, y.d)};
}
inline Lanes select_less(Lanes x, Lanes y, Lanes yes, Lanes no) {  // x < y ? yes : no
  return {vbslq_f32(vcltq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcltq_f32(x.b, y.b), yes.b, no.b),
          vbslq_f32(vcltq_f32(x.c, y.c), yes.c, no.c), vbslq_f32(vcltq_f32(x.d, y.d), yes.d, no.d)};
}
inline Lanes round_even(Lanes x) {
  return {vrndnq_f32(x.a), vrndnq_f32(x.b), vrndnq_f32(x.c), vrndnq_f32(x.d)};
}
// 2^n for integral n in -126 .. 127.
inline float32x4_t power_of_two(float32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
inline Lanes power_of_two(Lanes n) {
  return {power_of_two(n.a), power_of_two(n.b), power_of_two(n.c), power_of_two(n.d)};
}

// x < limit ? 0 : a * b
inline Lanes multiply_unless_below(Lanes x, Lanes limit, Lanes a, Lanes b) {
  return select_less(x, limit, set1(0.0f), a * b);
}
// 2^n of kExp2Shift + n, n in -126 .. 128.
inline float32x4_t shift_to_exponent(float32x4_t shifted) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23));
}
inline Lanes shift_to_exponent(Lanes x) {
  return {shift_to_exponent(x.a), shift_to_exponent(x.b), shift_to_exponent(x.c),
          shift_to_exponent(x.d)};
}

// The tree down to two lanes: l + (l + 8), l + (l + 4), l + (l + 2).
inline float32x2_t sum_to_two(Lanes x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  return vadd_f32(vget_low_f32(four), vget_high_f32(four));
}

// sums[i] = the tree sum of lanes[i].
inline void sum4(const Lanes lanes[4], float sums[4]) {
  vst1_f32(sums, vpadd_f32(sum_to_two(lanes[0]), sum_to_two(lanes[1])));
  vst1_f32(sums + 2, vpadd_f32(sum_to_two(lanes[2]), sum_to_two(lanes[3])));
}

// The largest lane, by the same tree.
inline float max_lane(Lanes x) {
  float m[4];
  vst1q_f32(m, max(max(x.a, x.c), max(x.b, x.d)));
  const float m0 = m[0] > m[2] ? m[0] : m[2], m1 = m[1] > m[3] ? m[1] : m[3];
  return m0 > m1 ? m0 : m1;
}

// out[e * out_stride + j] = rows[j][e] for 16 rows of 16, by blocks of 4 x 4.
inline void transpose(const float* const rows[16], float* out, long out_stride) {
  for (int j = 0; j < 16; j += 4) {
    for (int e = 0; e < 16; e += 4) {
      const float32x4x2_t even = vtrnq_f32(vld1q_f32(rows[j] + e), vld1q_f32(rows[j + 1] + e));
      const float32x4x2_t odd = vtrnq_f32(vld1q_f32(rows[j + 2] + e), vld1q_f32(rows[j + 3] + e));
      float* column = out + e * out_stride + j;
      for (int i = 0; i < 2; ++i) {
        const float32x4_t low = vcombine_f32(vget_low_f32(even.val[i]), vget_low_f32(odd.val[i]));
        const float32x4_t high =
            vcombine_f32(vget_high_f32(even.val[i]), vget_high_f32(odd.val[i]));
        vst1q_f32(column + i * out_stride, low);
        vst1q_f32(column + (i + 2) * out_stride, high);
      }
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
