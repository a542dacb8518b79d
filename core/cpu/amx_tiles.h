// SPDX-License-Identifier: MIT
// The tile registers of AMX: eight, each of at most 16 rows of 64 bytes. Included by files that are
// compiled for this instruction set alone; each has its own copy.
//
// Inline assembly, not the intrinsics: those of GCC 12 do not tell the compiler that a tile load
// reads memory, and some compilers name the registers themselves.
#pragma once

#include <cstdint>

namespace bitnet::cpu {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row

// The operand of ldtilecfg. Configuring clears all tiles.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  constexpr void set(int tile, int row_count) {
    rows[tile] = static_cast<std::uint8_t>(row_count);
    row_bytes[tile] = kTileBytes;
  }
};

inline void configure_tiles(const TileConfig& config) {
  asm volatile("ldtilecfg %0" : : "m"(config));
}

// Back to the initial state, in which the tiles cost a task switch nothing.
inline void release_tiles() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// stride: bytes from a row to the next.
template <int kTile>
void load_tile(const void* rows, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
void store_tile(void* rows, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}

// sums[m][n] += sum over k < 16, b < 4 of a[m][4 k + b] * b[k][4 n + b], signed bytes.
template <int kSums, int kA, int kB>
void add_tile_products() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
}

}  // namespace
}  // namespace bitnet::cpu
