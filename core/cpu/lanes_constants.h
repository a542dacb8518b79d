// SPDX-License-Identifier: MIT
// Coefficients of the polynomials behind exp and the normal distribution function, shared by every
// instruction set.
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

// Φ(-a) = exp(-a²/2) t (q0 + q1 t + … + q9 t⁹), t = 1 / (1 + kMillsShift a), for a >= 0: minimax,
// relative error 3.5e-9 before rounding.
inline constexpr float kMillsShift = 0.3f;
inline constexpr float kMillsPolynomial[10] = {
    0.11968663f,  0.11957284f, 0.11022732f,  0.07842563f,  0.09605766f,
    -0.07924698f, 0.19158122f, -0.22806711f, 0.112375595f, -0.020612793f};
inline constexpr float kInvSqrt2Pi = 0.398942280f;

}  // namespace bitnet::cpu
