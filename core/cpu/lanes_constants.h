// SPDX-License-Identifier: MIT
// Constants that every instruction set shares: coefficients of the polynomials behind exp and the
// normal distribution function, bounds of a quantised token.
#pragma once

namespace bitnet::cpu {

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2, exp(r) = 1 + r + r² (c0 + c1 r + … +
// c4 r⁴): minimax, relative error 3.1e-9. ln 2 is split in two, so that n * kLn2High is exact for
// |n| < 2^13.
inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
inline constexpr float kExpPolynomial[5] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f,
                                            0x1.123a20p-7f, 0x1.6a23d0p-10f};
inline constexpr float kExpUnderflow = -86.6433976f;  // -125 ln 2: exp is 0 below
inline constexpr float kExpOverflow = 88.7228394f;    // ln(2^128): infinity above

// 2^x = 2^n 2^r, n = round(x), 2^r = 1 + r (c0 + c1 r + … + c4 r⁴): minimax, relative error 1.1e-7,
// for attention's weights, x <= 0. Adding kExp2Shift rounds x and leaves n + 127 in the low bits,
// to be shifted into the exponent.
inline constexpr float kExp2Polynomial[5] = {0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b754p-5f,
                                             0x1.3cea8ep-7f, 0x1.5bba14p-10f};
inline constexpr float kExp2Shift = 12583039.0f;  // 1.5 * 2^23 + 127
inline constexpr float kExp2Underflow = -126.0f;  // 0 below

// Φ(-a) = exp(-a²/2) t (q0 + q1 t + … + q9 t⁹), t = 1 / (1 + kMillsShift a), for a >= 0: minimax,
// relative error 3.5e-9 before rounding.
inline constexpr float kMillsShift = 0.3f;
inline constexpr float kMillsPolynomial[10] = {
    0.11968663f,  0.11957284f, 0.11022732f,  0.07842563f,  0.09605766f,
    -0.07924698f, 0.19158122f, -0.22806711f, 0.112375595f, -0.020612793f};
inline constexpr float kInvSqrt2Pi = 0.398942280f;

inline constexpr float kScaleEps = 1e-5f;  // both as in core/quant/ternary.h
inline constexpr float kActivationMax = 127.0f;

}  // namespace bitnet::cpu
