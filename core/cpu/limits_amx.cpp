// SPDX-License-Identifier: MIT
// Limits of AMX: tdpbssd on whole tiles, and what it shares with AVX-512.
#include "core/cpu/amx_tiles.h"
#include "core/cpu/lanes_limits_avx512.h"

namespace bitnet::cpu {
namespace {

// A tile product takes 16 cycles and starts when the one before is done; four tiles of sums, as the
// products of panels have, outlast its latency.
constexpr int kSumTiles = 4;
constexpr int64_t kTileOperations = int64_t{2} * kTileRows * kTileRows * kTileBytes;

uint32_t dot_tiles(int64_t rounds) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) config.set(tile, kTileRows);
  configure_tiles(config);
  alignas(64) uint8_t bytes[kTileRows * kTileBytes];
  for (uint8_t& byte : bytes) byte = 3;
  load_tile<4>(bytes, kTileBytes);
  load_tile<5>(bytes, kTileBytes);
  load_tile<6>(bytes, kTileBytes);
  load_tile<7>(bytes, kTileBytes);
  for (int64_t r = 0; r < rounds; ++r) {
    add_tile_products<0, 4, 6>();
    add_tile_products<1, 4, 7>();
    add_tile_products<2, 5, 6>();
    add_tile_products<3, 5, 7>();
  }
  alignas(64) uint32_t sums[kTileRows * kTileRows];
  uint32_t all = 0;
  const auto mix = [&] {
    for (const uint32_t sum : sums) all ^= sum;
  };
  store_tile<0>(sums, kTileBytes);
  mix();
  store_tile<1>(sums, kTileBytes);
  mix();
  store_tile<2>(sums, kTileBytes);
  mix();
  store_tile<3>(sums, kTileBytes);
  mix();
  release_tiles();
  return all;
}

}  // namespace

const LimitKernels kLimitsAmx = {
    "amx",
    {kRead, kReadAheadOf, kReadPaced},
    {kMultiplyAdd, {}},
    {{"tdpbssd, whole tiles", kSumTiles* kTileOperations, dot_tiles}, {}},
};

}  // namespace bitnet::cpu
