// SPDX-License-Identifier: MIT
// Products y[m, n] = sum over k of a[m, k] * b[n, k] on tensor cores. A block computes one tile of
// y; its warps share the tile's operands, which pass through a ring of shared-memory stages filled
// by cp.async while earlier stages are multiplied. Depths count bytes of k: the same for every type
// of element. An output is summed over k in ascending slices, whatever the tile and the matrix
// around it: a row's result depends on that row alone.
//
// b may be packed ternary weights (pack_codes() of core/quant): then a line holds four columns of y,
// a quarter of all columns apart, and is unpacked in registers, into codes 0, 1, 2 in the place that
// they have in the byte or in half of it: sums are those of trit + 1, times 4 in quarters 1 and 3.
#pragma once

#include "cuda/gpu.h"

namespace bitnet::cuda {

inline constexpr int kStageDepth = 128;  // bytes of k in a stage: a line fills the 32 banks
inline constexpr int kChunkBytes = 16;   // of one cp.async, and of one row of an ldmatrix
inline constexpr int kSliceDepth = 32;   // bytes of k in one mma
inline constexpr int kStageChunks = kStageDepth / kChunkBytes;
inline constexpr int kStageSlices = kStageDepth / kSliceDepth;
inline constexpr int kPartDepth = 64;  // bytes of k between two calls of TileProduct's `before`

enum class Columns { plain, packed };

// kBlocks: that a multiprocessor should hold at once. kAhead: slices of a stage that are loaded into
// registers before the one that is multiplied is done, 0 or 1.
template <int kTileRows, int kTileColumns, int kWarpTileRows, int kWarpTileColumns, int kRing,
          int kBlocks, int kAhead, Columns kLayout = Columns::plain>
struct GemmTile {
  static constexpr int kRows = kTileRows, kColumns = kTileColumns;
  static constexpr int kWarpRows = kWarpTileRows, kWarpColumns = kWarpTileColumns;
  static constexpr int kStages = kRing, kResidentBlocks = kBlocks, kSlicesAhead = kAhead;
  static constexpr bool kPacked = kLayout == Columns::packed;
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * gpu::kWarpSize;
  static constexpr int kColumnLines = kPacked ? kColumns / 4 : kColumns;
  static constexpr int kWarpLines = kPacked ? kWarpColumns / 4 : kWarpColumns;
  static constexpr int kLineGroups = kWarpLines / 16;  // what a warp's ldmatrix of b reads
  static constexpr int kLines = kRows + kColumnLines;  // of a stage: rows of a, then b
  static constexpr int kStageBytes = kLines * kStageDepth;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kRowStep = kThreads / kStageChunks;  // lines that the block copies at once
  static constexpr int kRowCopies = kRows / kRowStep, kColumnCopies = kColumnLines / kRowStep;
  static constexpr int kRowFragments = kWarpRows / 16, kColumnFragments = kWarpColumns / 8;
  static constexpr int kQuads = kColumnFragments / 2;  // of columns, in a row of a thread
  static_assert(kRows % kRowStep == 0 && kColumnLines % kRowStep == 0 && kWarpLines % 16 == 0);
  static_assert(kSharedBytes <= 99 << 10);  // of every device
};

// Lines contiguous along k, all of them aligned to 16 bytes and `depth` bytes long.
struct GemmOperand {
  const void* lines;
  int count;
};

// The sums of a warp: fragment (i, j) has the layout of the mma's accumulator. Fragments 2 q and 2 q
// + 1 are the quad q of the thread: elements 2 e and 2 e + 1 of both are four successive columns of
// its row e.
template <typename Tile, typename Sum>
using GemmSums = Sum[Tile::kRowFragments][Tile::kColumnFragments][4];

// Where chunk c of a stage's line lies. A line fills the 32 banks; exchanging chunks sends the eight
// lines that one ldmatrix reads to different banks: successive ones of a, pairs of b (b_line()).
BITNET_DEVICE int row_offset(int line, int chunk) {
  return line * kStageDepth + (chunk ^ line % 8) * kChunkBytes;
}
BITNET_DEVICE int column_offset(int line, int chunk) {
  return line * kStageDepth + (chunk ^ (line % 2 + line / 4 % 4 * 2)) * kChunkBytes;
}
// Of 16 lines of b, number `index` of fragment `half`.
BITNET_DEVICE int b_line(int half, int index) { return index / 2 * 4 + half * 2 + index % 2; }

// The thread's share of copying a stage: one chunk of lines kRowStep apart.
template <typename Tile>
class StageCopier {
 public:
  BITNET_DEVICE StageCopier(const GemmOperand& a, const GemmOperand& b, int depth, int first_row,
                            int first_line)
      : line_(static_cast<int>(threadIdx.x) / kStageChunks),
        chunk_(static_cast<int>(threadIdx.x) % kStageChunks),
        step_(Tile::kRowStep * depth),
        left_(depth - chunk_ * kChunkBytes),
        rows_(a.count - first_row - line_),
        columns_(b.count - first_line - line_),
        a_(start_of(a, depth, first_row)),
        b_(start_of(b, depth, first_line)) {}
  // The next stage; zeros outside the matrices.
  BITNET_DEVICE void start(unsigned char* stage) {
    copy<Tile::kRowCopies>(a_, left_ > 0 ? rows_ : 0,
                           [&](int line) { return stage + row_offset(line, chunk_); });
    copy<Tile::kColumnCopies>(b_, left_ > 0 ? columns_ : 0, [&](int line) {
      return stage + Tile::kRows * kStageDepth + column_offset(line, chunk_);
    });
    a_ += kStageDepth, b_ += kStageDepth, left_ -= kStageDepth;
  }

 private:
  BITNET_DEVICE const unsigned char* start_of(const GemmOperand& x, int depth, int first) const {
    return static_cast<const unsigned char*>(x.lines) +
           static_cast<std::size_t>(first + line_) * depth + chunk_ * kChunkBytes;
  }
  template <int kCopies, typename Target>
  BITNET_DEVICE void copy(const unsigned char* from, int lines, Target target) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      gpu::copy_async16(target(line_ + i * Tile::kRowStep), from, i * Tile::kRowStep < lines);
      from += step_;
    }
  }

  int line_, chunk_;
  int step_;                   // bytes of a matrix from one of the lines to the next
  int left_, rows_, columns_;  // of the matrices, from the thread's first chunk on
  const unsigned char *a_, *b_;
};

BITNET_DEVICE void multiply_fragments(int (&sums)[4], const std::uint32_t (&a)[4],
                                      const std::uint32_t (&b)[2]) {
  gpu::mma_m16n8k32_s8(sums, a, b);
}
BITNET_DEVICE void multiply_fragments(float (&sums)[4], const std::uint32_t (&a)[4],
                                      const std::uint32_t (&b)[2]) {
  gpu::mma_m16n8k16_bf16(sums, a, b);
}

// The warp's place in the tile.
template <typename Tile>
struct WarpPlace {
  int lane, row, line;  // line: of b
  BITNET_DEVICE WarpPlace() {
    const int warp = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
    lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
    row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
    line = warp % Tile::kWarpsAcross * Tile::kWarpLines;
  }
};

// A quarter's codes of four packed bytes.
BITNET_DEVICE std::uint32_t codes_of_quarter(std::uint32_t bytes, int quarter) {
  return (quarter < 2 ? bytes : bytes >> 4) & (quarter % 2 == 0 ? 0x03030303U : 0x0c0c0c0cU);
}

// Where a lane's lines of a stage are, for ldmatrix: of the first 16 rows of a and lines of b.
template <typename Tile>
struct SlicePlace {
  int a, b;  // of the first slice

  BITNET_DEVICE explicit SlicePlace(const WarpPlace<Tile>& warp) {
    const int lane = warp.lane;
    // Rows 0-7, 8-15 of chunk 0, then of chunk 1.
    a = row_offset(warp.row + lane % 16, lane / 16);
    // Chunks 0 and 1 of the first fragment's lines, then of the second's.
    b = Tile::kRows * kStageDepth +
        column_offset(warp.line + b_line(lane / 16, lane % 8), lane / 8 % 2);
  }
};

// The operands of a warp for one slice. b: of 16 lines, the halves of the slice's bytes of the first
// fragment's, then of the second's.
template <typename Tile>
struct SliceFragments {
  std::uint32_t a[Tile::kRowFragments][4], b[Tile::kLineGroups][4];

  BITNET_DEVICE void load(const unsigned char* stage, const SlicePlace<Tile>& place, int slice) {
    const int exchange = slice * kSliceDepth;  // changes bits that only the chunk has
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {
      gpu::ldmatrix_x4(a[i], stage + (place.a ^ exchange) + i * 16 * kStageDepth);
    }
#pragma unroll
    for (int g = 0; g < Tile::kLineGroups; ++g) {
      gpu::ldmatrix_x4(b[g], stage + (place.b ^ exchange) + g * 16 * kStageDepth);
    }
  }
  template <typename Sum>
  BITNET_DEVICE void multiply(GemmSums<Tile, Sum>& sums) const {
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t* const words = b[Tile::kPacked ? q / 4 : q] + 2 * half;
        const std::uint32_t fragment[2] = {
            Tile::kPacked ? codes_of_quarter(words[0], q % 4) : words[0],
            Tile::kPacked ? codes_of_quarter(words[1], q % 4) : words[1]};
#pragma unroll
        for (int i = 0; i < Tile::kRowFragments; ++i) {
          multiply_fragments(sums[i][2 * q + half], a[i], fragment);
        }
      }
    }
  }
};

struct Nothing {
  template <typename T>
  BITNET_DEVICE void operator()(const T&) const {}
};

// The block's tile from row first_row of a and line first_line of b on; all threads take part. What
// a thread loads between the constructor and multiply() is under way together with the first stages.
template <typename Tile>
class TileProduct {
 public:
  // `stages` is shared memory of Tile::kSharedBytes, `depth` a multiple of 16.
  BITNET_DEVICE TileProduct(const GemmOperand& a, const GemmOperand& b, int depth, int first_row,
                            int first_line, unsigned char* stages)
      : copier_(a, b, depth, first_row, first_line),
        steps_((depth + kStageDepth - 1) / kStageDepth),
        stages_(stages) {
#pragma unroll
    for (int s = 0; s < Tile::kStages - 1; ++s) {
      if (s < steps_) copier_.start(stage(s));
      gpu::commit_copies();  // also an empty group, so that the waits below count the same
    }
  }
  // Adds to the sums. before(part) is called before bytes [part, part + 1) * kPartDepth of k are
  // added; parts follow each other, the last may be of zeros. also(fragments) is called for the
  // warp's operands of each slice.
  template <typename Sum, typename Before = Nothing, typename Also = Nothing>
  BITNET_DEVICE void multiply(GemmSums<Tile, Sum>& sums, Before before = {}, Also also = {}) {
    const SlicePlace<Tile> place{WarpPlace<Tile>()};
    constexpr int kBuffers = Tile::kSlicesAhead + 1;
    SliceFragments<Tile> fragments[kBuffers];
    int at = 0, filled = Tile::kStages - 1;  // stages of the ring: multiplied, filled next
    wait_for_stage();
    if (Tile::kSlicesAhead > 0) fragments[0].load(stage(0), place, 0);
    for (int step = 0; step < steps_; ++step) {
      if (step + Tile::kStages - 1 < steps_) copier_.start(stage(filled));
      gpu::commit_copies();
      const unsigned char* const now = stage(at);
      filled = at;
      at = at + 1 < Tile::kStages ? at + 1 : 0;
#pragma unroll
      for (int slice = 0; slice < kStageSlices; ++slice) {
        const int load = slice + Tile::kSlicesAhead;
        if (load < kStageSlices) fragments[load % kBuffers].load(now, place, load);
        if (slice + 1 == kStageSlices && step + 1 < steps_) {
          wait_for_stage();
          if (Tile::kSlicesAhead > 0) fragments[0].load(stage(at), place, 0);
        }
        if (slice % kPartSlices == 0) before((step * kStageSlices + slice) / kPartSlices);
        fragments[slice % kBuffers].template multiply<Sum>(sums);
        also(fragments[slice % kBuffers]);
      }
    }
  }

 private:
  static constexpr int kPartSlices = kPartDepth / kSliceDepth;

  BITNET_DEVICE unsigned char* stage(int index) const {
    return stages_ + index * Tile::kStageBytes;
  }
  BITNET_DEVICE static void wait_for_stage() {
    gpu::wait_copies<Tile::kStages - 2>();
    __syncthreads();  // the next stage is complete, and everybody has left the one before
  }

  StageCopier<Tile> copier_;
  int steps_;
  unsigned char* stages_;
};

// Row number `index` (0 .. 2 kRowFragments) of the thread's, in the tile.
template <typename Tile>
BITNET_DEVICE int row_in_tile(const WarpPlace<Tile>& warp, int index) {
  return warp.row + index * 8 + warp.lane / 4;
}
// Line of b, in the tile, of the first column of quad q; with packed columns that of its quarter.
template <typename Tile>
BITNET_DEVICE int line_in_tile(const WarpPlace<Tile>& warp, int q) {
  return warp.line + (Tile::kPacked ? q / 4 : q) * 16 + warp.lane % 4 * 4;
}

// The thread's sums of quad q in its row `index`, as reals.
template <typename Tile, typename Sum>
BITNET_DEVICE float4 quad_of(const GemmSums<Tile, Sum>& sums, int index, int q) {
  const auto& low = sums[index / 2][2 * q];
  const auto& high = sums[index / 2][2 * q + 1];
  const int e = index % 2 * 2;
  return make_float4(static_cast<float>(low[e]), static_cast<float>(low[e + 1]),
                     static_cast<float>(high[e]), static_cast<float>(high[e + 1]));
}

}  // namespace bitnet::cuda
