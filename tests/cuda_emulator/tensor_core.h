// SPDX-License-Identifier: MIT
// The emulated twins of the PTX wrappers in cuda/gpu.h: mma, ldmatrix, cp.async. Fragment layouts
// are those of the PTX ISA ("Matrix Fragments for mma.m16n8k32 / m16n8k16", "ldmatrix");
// fragment_layout_test.cpp writes them out a second time, element by element. Included by device.h.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "tests/cuda_emulator/simt.h"

namespace bitnet::emulator {

template <typename Accumulator>
struct MmaLane {
  Accumulator* d;
  const std::uint32_t *a, *b;
};

// Row and column of accumulator i (0..3) of a lane, for every m16n8 shape.
inline int accumulator_row(int lane, int i) { return lane / 4 + (i / 2) * 8; }
inline int accumulator_column(int lane, int i) { return lane % 4 * 2 + i % 2; }

struct LdmatrixLane {
  const void* row;
  std::uint32_t* registers;
};

// Lane 8 m + r gives the address of row r of matrix m; register m of lane l gets the elements
// (l / 4, 2 (l % 4)) and the next one in the row, or, transposed, in the column.
inline void load_matrices(std::uint32_t (&registers)[4], const void* row, bool transposed,
                          Site site) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
    kernel_failure(site, "ldmatrix: row address not aligned to 16 bytes");
  }
  require_shared(row, 16, "ldmatrix", site);
  LdmatrixLane lane{row, registers};
  const auto element = [](void* const* lanes, int matrix, int r, int c) {
    const void* from = static_cast<LdmatrixLane*>(lanes[matrix * 8 + r])->row;
    std::uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(from) + 2 * c, 2);
    return std::uint32_t{bits};
  };
  if (transposed) {
    warp_collective(
        0xffffffffU, "ldmatrix.x4.trans", &lane,
        [](void* const* lanes, unsigned) {
          for (int l = 0; l < 32; ++l) {
            for (int m = 0; m < 4; ++m) {
              static_cast<LdmatrixLane*>(lanes[l])->registers[m] =
                  decltype(element){}(lanes, m, l % 4 * 2, l / 4) |
                  decltype(element){}(lanes, m, l % 4 * 2 + 1, l / 4) << 16;
            }
          }
        },
        site);
  } else {
    warp_collective(
        0xffffffffU, "ldmatrix.x4", &lane,
        [](void* const* lanes, unsigned) {
          for (int l = 0; l < 32; ++l) {
            for (int m = 0; m < 4; ++m) {
              static_cast<LdmatrixLane*>(lanes[l])->registers[m] =
                  decltype(element){}(lanes, m, l / 4, l % 4 * 2) |
                  decltype(element){}(lanes, m, l / 4, l % 4 * 2 + 1) << 16;
            }
          }
        },
        site);
  }
}

}  // namespace bitnet::emulator

namespace bitnet::gpu {

inline void mma_m16n8k32_s8(int (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                            emulator::Site site = emulator::Site::current()) {
  emulator::MmaLane<int> lane{d, a, b};
  emulator::warp_collective(
      0xffffffffU, "mma.m16n8k32.s8", &lane,
      [](void* const* lanes, unsigned) {
        std::int8_t rows[16][32], columns[8][32];
        for (int l = 0; l < 32; ++l) {
          const auto* from = static_cast<emulator::MmaLane<int>*>(lanes[l]);
          const int group = l / 4, k = l % 4 * 4;
          std::memcpy(&rows[group][k], &from->a[0], 4);
          std::memcpy(&rows[group + 8][k], &from->a[1], 4);
          std::memcpy(&rows[group][k + 16], &from->a[2], 4);
          std::memcpy(&rows[group + 8][k + 16], &from->a[3], 4);
          std::memcpy(&columns[group][k], &from->b[0], 4);
          std::memcpy(&columns[group][k + 16], &from->b[1], 4);
        }
        for (int l = 0; l < 32; ++l) {
          auto* to = static_cast<emulator::MmaLane<int>*>(lanes[l]);
          for (int i = 0; i < 4; ++i) {
            const std::int8_t* x = rows[emulator::accumulator_row(l, i)];
            const std::int8_t* y = columns[emulator::accumulator_column(l, i)];
            int sum = 0;
            for (int k = 0; k < 32; ++k) sum += x[k] * y[k];
            // Wraps around, as on the device.
            to->d[i] =
                static_cast<int>(static_cast<unsigned>(to->d[i]) + static_cast<unsigned>(sum));
          }
        }
      },
      site);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2],
                              emulator::Site site = emulator::Site::current()) {
  emulator::MmaLane<float> lane{d, a, b};
  emulator::warp_collective(
      0xffffffffU, "mma.m16n8k16.bf16", &lane,
      [](void* const* lanes, unsigned) {
        float rows[16][16], columns[8][16];
        const auto put = [](std::uint32_t pair, float* to) {
          to[0] = std::bit_cast<float>(pair << 16);
          to[1] = std::bit_cast<float>(pair & 0xffff0000U);
        };
        for (int l = 0; l < 32; ++l) {
          const auto* from = static_cast<emulator::MmaLane<float>*>(lanes[l]);
          const int group = l / 4, k = l % 4 * 2;
          put(from->a[0], &rows[group][k]);
          put(from->a[1], &rows[group + 8][k]);
          put(from->a[2], &rows[group][k + 8]);
          put(from->a[3], &rows[group + 8][k + 8]);
          put(from->b[0], &columns[group][k]);
          put(from->b[1], &columns[group][k + 8]);
        }
        for (int l = 0; l < 32; ++l) {
          auto* to = static_cast<emulator::MmaLane<float>*>(lanes[l]);
          for (int i = 0; i < 4; ++i) {
            const float* x = rows[emulator::accumulator_row(l, i)];
            const float* y = columns[emulator::accumulator_column(l, i)];
            // The device adds the products in an order and with a rounding of its own.
            for (int k = 0; k < 16; ++k) to->d[i] += x[k] * y[k];
          }
        }
      },
      site);
}

inline void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row,
                        emulator::Site site = emulator::Site::current()) {
  emulator::load_matrices(registers, row, false, site);
}
inline void ldmatrix_x4_trans(std::uint32_t (&registers)[4], const void* row,
                              emulator::Site site = emulator::Site::current()) {
  emulator::load_matrices(registers, row, true, site);
}

inline void copy_async16(void* shared, const void* global, bool valid,
                         emulator::Site site = emulator::Site::current()) {
  emulator::start_copy(shared, global, valid, site);
}
inline void commit_copies() { emulator::close_copy_group(); }
template <int kGroupsInFlight>
void wait_copies() {
  emulator::wait_for_copies(kGroupsInFlight);
}

}  // namespace bitnet::gpu
