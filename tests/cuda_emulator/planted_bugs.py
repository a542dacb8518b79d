#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Plants bugs into the kernels, one at a time, and fails if the emulator's tests do not notice one.

Usage: planted_bugs.py BUILD_FOLDER. The folder is a Ninja build of bitnet_emulator_tests; it is not changed.
"""
import json
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = "bitnet_emulator_tests"

GEMM, NORM, GEMV = "cuda/int8_gemm.cu", "cuda/norm_quantize.cu", "cuda/packed_gemv.cu"
PACKED_ROWS = "cuda/packed_rows.cuh"
REDUCE, WORDS = "cuda/reduce.cuh", "tests/cuda_emulator/vocabulary_kernels.cu"
ROWS, VECTORS, ACTIVATIONS = "cuda/row_threads.cuh", "cuda/row_vectors.cuh", "cuda/activations.cuh"
BACKWARD, GATED = "cuda/norm_backward.cu", "cuda/gated_activation.cu"
ELEMENTS, DROPOUT, ROPE, ADAMW = "cuda/elementwise.cu", "cuda/dropout.cu", "cuda/rope.cu", "cuda/adamw.cu"
CROSS, QUADS, POSITION = "cuda/cross_entropy.cu", "cuda/quads.cuh", "cuda/position.cuh"
BF16, TILES, CONVERT, REALS = "cuda/bf16_gemm.cu", "cuda/gemm_tiles.cuh", "cuda/to_bf16.cu", "cuda/reals.cuh"
HEAD, UNPACK, BYTES, ROUND = "cuda/int8_gemv.cu", "cuda/unpack_codes.cu", "cuda/byte_tile.cuh", "cuda/gradient_codes.cu"
PACKED, GRADIENT, ROWS_OUT = "cuda/packed_gemm.cu", "cuda/gradient_gemm.cu", "cuda/gemm_rows.cuh"
SUMS, TILE_SUMS, STATISTICS = "cuda/tensor_sums.cu", "cuda/tile_sums.cuh", "cuda/weight_statistics.cu"
LIST = "cuda/tensor_list.cuh"
MEDIAN, CODES, BLEND, EMBEDDING = "cuda/magnitude_median.cu", "cuda/packed_codes.cu", "cuda/blend.cu", "cuda/embedding.cu"
READ = "cuda/memory_read.cu"
FORWARD, GRADIENTS, DECODE = "cuda/attention_forward.cu", "cuda/attention_backward.cu", "cuda/attention_decode.cu"
OPERANDS, ATTENTION = "cuda/attention_operands.cu", "cuda/attention_tiles.cuh"

# (kernel file that is compiled, file that is changed, what, text, which occurrence of it, replacement)
BUGS = [
    (GEMM, REALS, "four of bf16 are swapped", "gpu::pack_bf16x2(four.x, four.y)", 0, "gpu::pack_bf16x2(four.y, four.x)"),
    (GEMV, REALS, "everything is f32", "  if (x.bf16) {", 0, "  if (false) {"),
    (GEMM, GEMM, "a group keeps its sums", "sums[i][j][e] = 0;", 0, ""),
    (GEMM, GEMM, "one part of a row too many", "if (column >= p.columns) return;", 0, "if (column > p.columns) return;"),
    (GEMM, GEMM, "the scales of the group before", "++group, groups", 0, "group++, groups"),
    (GEMM, GEMM, "groups that begin a part late", "part != (group + 1) * group_parts", 0, "part != (group + 1) * group_parts + 1"),
    (GEMM, GEMM, "the last group is left out", "scales.fold(sums, f);", 1, ""),
    (GEMM, GEMM, "scales of columns exchanged", "e % 2 == 0 ? four.x : four.y", 0, "e % 2 == 0 ? four.y : four.x"),
    (GEMM, GEMM, "one column's scale too many", "place.left > 1 ? from[groups]", 0, "place.left > 0 ? from[groups]"),
    (GEMM, GEMM, "the addend is left out", "p.addend == nullptr ? y : sum_of(addend[q], y)", 0, "y"),
    (GEMM, TILES, "no barrier between copying and multiplying", "__syncthreads();", 0, ""),
    (GEMM, TILES, "nothing is called before a part", "before((step", 0, "if (false) before((step"),
    (GEMM, ROWS_OUT, "rows are always aligned", "columns % kQuad == 0 && y.aligned", 0, "y.aligned"),
    (PACKED, PACKED, "the sums of activations are not complete", "sum += __shfl_xor_sync(gpu::kWholeWarp, sum, 2);", 0, ""),
    (PACKED, PACKED, "rows of a fragment exchanged", "of[2 * i + w % 2]", 0, "of[2 * i + w / 2]"),
    (PACKED, PACKED, "quarters 1 and 3 stay times 4", "j / 2 % 2 == 0 ? 0 : 2", 0, "0"),
    (PACKED, PACKED, "a matrix has a tile too many", "tile < tiles.end[i]", 0, "tile <= tiles.end[i]"),
    (PACKED, PACKED, "tiles are not those of the matrix", "tile -= first_tile;", 0, ""),
    (PACKED, PACKED, "no residual", "if (m.residual != nullptr) {", 0, "if (false) {"),
    (PACKED, PACKED, "quads are always aligned", "quarter % kQuad == 0", 0, "true"),
    (PACKED, TILES, "quarters in the wrong order", "quarter < 2 ? bytes : bytes >> 4", 0, "quarter < 2 ? bytes >> 4 : bytes"),
    (PACKED, ROWS_OUT, "columns of a quarter too many", "lines - line}", 0, "columns - line}"),
    (GRADIENT, GRADIENT, "a group keeps its sums", "sums[i][j][e] = 0;", 0, ""),
    (GRADIENT, GRADIENT, "the scales of the group before", "p.scale + ++group", 0, "p.scale + group++"),
    (GRADIENT, GRADIENT, "all groups have the first one's size", "(group + 1) * p.group_size : p.group_ends[group]", 0, "(group + 1) * p.group_size : p.group_ends[0]"),
    (GRADIENT, GRADIENT, "all rows are of the first part", "row >= p.part[part + 1].first_row", 0, "false"),
    (GRADIENT, GRADIENT, "a part begins a row late", "row >= p.part[part + 1].first_row", 0, "row > p.part[part + 1].first_row"),
    (GRADIENT, GRADIENT, "rows of a fragment exchanged", "scale[2 * i + e / 2]", 0, "scale[2 * i + e % 2]"),
    (GRADIENT, ROWS_OUT, "one row's scale too many", "row < rows ? x[", 0, "row <= rows ? x["),
    (GRADIENT, ROWS_OUT, "one row too many", "return at(index) < rows;", 0, "return at(index) <= rows;"),
    (READ, READ, "one tile too many", "tile < tiles;", 0, "tile <= tiles;"),
    (READ, READ, "a round that wraps too late", "tile < tiles - shift", 0, "tile <= tiles - shift"),
    (READ, READ, "a vector is left out", "int i = 0; i < kVectors", 1, "int i = 1; i < kVectors"),
    (READ, READ, "a first round that is the only one", "round < rounds", 0, "round < 1"),
    (WORDS, REDUCE, "no barrier before the warps' values are read", "__syncthreads();", 0, ""),
    (WORDS, REDUCE, "no barrier before they are written again", "__syncthreads();", 1, ""),
    (WORDS, REDUCE, "a warp is left out", "int warp = 1;", 0, "int warp = 2;"),
    (NORM, REDUCE, "a shuffle with half the mask", "__shfl_xor_sync(gpu::kWholeWarp", 0, "__shfl_xor_sync(0x0000ffffU"),
    (NORM, ROWS, "no barrier before the warps' values are read", "__syncthreads();", 0, ""),
    (NORM, ROWS, "two sums in one slot", "of_warp + slot * kMostWarps", 0, "of_warp"),
    (NORM, ROWS, "a warp is left out", "int warp = 1;", 0, "int warp = 2;"),
    (NORM, ROWS, "a narrow row is thought to have a block", "if (blockDim.x == gpu::kWarpSize) return value;", 0, ""),
    (NORM, ROWS, "one quad too many", "if (at < width)", 0, "if (at <= width)"),
    (NORM, ROWS, "rows beyond the registers are held in them", " && quads_of_row <= quads * threads", 0, ""),
    (NORM, NORM, "a lone row without its gain", "if (lone_row) each(read_gain);", 0, ""),
    (NORM, NORM, "no wait for the rows", "gpu::wait_for_predecessors();", 0, ""),
    (NORM, NORM, "one row too many", "row >= op.rows", 0, "row > op.rows"),
    (NORM, NORM, "one row too many is dequantised", "row >= op.rows", 1, "row > op.rows"),
    (NORM, NORM, "rows are thought to be aligned", "op.width % kQuad == 0 && ", 0, ""),
    (NORM, NORM, "codes are thought to be aligned", "op.width % kQuad == 0 && ", 1, ""),
    (NORM, NORM, "the variance of what is not there", "part.has(i) ? z[q][i] - mean : 0.0f", 0, "z[q][i] - mean"),
    (NORM, NORM, "the magnitude of what is not there", "if (part.has(i)) absmax_bits", 0, "absmax_bits"),
    (NORM, NORM, "codes of the row before its norm", "if constexpr (!kHeld) normalize(q, at, part);", 0, "if constexpr (!kHeld) read(q, at, part);"),
    (NORM, NORM, "no thread writes the scale", "if (threadIdx.x == 0) op.act_scale", 0, "if (threadIdx.x == blockDim.x) op.act_scale"),
    (NORM, VECTORS, "the sign is not masked", "& 0x7fffffffU", 0, ""),
    (NORM, VECTORS, "one code too many", "if (part.has(i)) to[i]", 0, "if (i <= part.left) to[i]"),
    (NORM, VECTORS, "bf16 that is read again is taken for f32", "} else if (from.bf16) {", 0, "} else if (false) {"),
    (NORM, VECTORS, "a result of bf16 is stored as f32", "} else if (to.bf16) {", 0, "} else if (false) {"),
    (NORM, QUADS, "quads are thought to be aligned", "x.aligned(kQuad * x.element_bytes())", 0, "x.aligned(2)"),
    (NORM, QUADS, "a pair of bf16 is swapped", "gpu::pack_bf16x2(x.z, x.w)", 0, "gpu::pack_bf16x2(x.w, x.z)"),
    (NORM, NORM, "bf16 that is held is taken for f32", "reads_bf16(op.input) ?", 0, "false ?"),
    (BACKWARD, BACKWARD, "a bf16 input is taken for f32 beside an f32 gradient", "op.input.x.bf16 ? 0 : quads", 0, "quads"),
    (BACKWARD, BACKWARD, "two rows' sums in one slot", "row_sums(sums, row % 2)", 0, "row_sums(sums, 0)"),
    (BACKWARD, BACKWARD, "the first row adds to what was there", "kHeld || row > first ? dgain[q][i] : 0.0f", 0, "dgain[q][i]"),
    (BACKWARD, BACKWARD, "one row too many", "min(first + stretch, op.rows)", 0, "first + stretch"),
    (BACKWARD, BACKWARD, "a part without rows is written", " && first < end", 1, ""),
    (BACKWARD, BACKWARD, "a part without rows is read", " && first < end", 0, ""),
    (BACKWARD, BACKWARD, "one row too many is on its way", "row + 1 < end", 0, "row + 1 <= end"),
    (BACKWARD, BACKWARD, "the kernel of another activation", "return kernel_for_bf16<RowActivation::silu>();", 0, "return kernel_for_bf16<RowActivation::relu2>();"),
    (BACKWARD, BACKWARD, "rows are thought to be aligned", "op.width % kQuad == 0 && ", 0, ""),
    (BACKWARD, BACKWARD, "no barrier before the slices are read", "__syncthreads();", 0, ""),
    (BACKWARD, BACKWARD, "a slice is left out", "slice < slices", 0, "slice + 1 < slices"),
    (BACKWARD, BACKWARD, "one column too many", "column < width", 1, "column <= width"),
    (BACKWARD, ACTIVATIONS, "the gradient of the gate without up", "dh[i] * up[i] * ", 0, "dh[i] * "),
    (GATED, GATED, "bf16 is taken for f32", "op.h.bf16 ?", 0, "false ?"),
    (GATED, GATED, "gradients of bf16 are taken for f32", "op.dh.bf16 ?", 0, "false ?"),
    (GATED, GATED, "a tail is taken for a whole quad", "left < kQuad ? left : kQuad", 0, "kQuad"),
    (GEMV, PACKED_ROWS, "quarters in the wrong order", "0x0c0c0c0cU", 0, "0x30303030U"),
    (GEMV, PACKED_ROWS, "a quarter that is not shifted back", "quarter == 1 ? 2 : 4", 0, "quarter == 1 ? 0 : 4"),
    (GEMV, PACKED_ROWS, "the + 1 of the trits stays", " - codes;", 0, ";"),
    (GEMV, PACKED_ROWS, "rows behind the last are prefetched", "min(m.columns / kQuarters - row, count)", 0, "count"),
    (GEMV, GEMV, "no wait for the codes", "gpu::wait_for_predecessors();", 0, ""),
    (GEMV, GEMV, "no wait for the codes with groups", "gpu::wait_for_predecessors();", 1, ""),
    (GEMV, GEMV, "no barrier before the parts are added", "__syncthreads();", 0, ""),
    (GEMV, GEMV, "a part is left out", "int part = 0;", 0, "int part = 1;"),
    (GEMV, GEMV, "all parts are the first", "warp % parts * gpu::kWarpSize", 0, "0 * gpu::kWarpSize"),
    (GEMV, GEMV, "only the first vectors", "first += kAhead * step", 0, "first += p.depth"),
    (GEMV, GEMV, "one row too many is read", "min(first_row + warp / parts, quarter - 1)", 0, "first_row + warp / parts"),
    (GEMV, GEMV, "one row too many", "out_row < quarter", 0, "out_row <= quarter"),
    (GEMV, GEMV, "one row too many with groups", "row >= quarter", 1, "row > quarter"),
    (GEMV, GEMV, "a sum with half the mask", "__reduce_add_sync(gpu::kWholeWarp", 0, "__reduce_add_sync(0x0000ffffU"),
    (GEMV, GEMV, "the first token's codes for all", "static_cast<std::size_t>(token) * p.depth + k", 0, "k"),
    (GEMV, GEMV, "a token too many is read", "min(t, p.tokens - 1)", 0, "t"),
    (GEMV, GEMV, "a token too many is written", "out_token < p.tokens", 0, "out_token <= p.tokens"),
    (GEMV, GEMV, "a token too many is written with groups", "lane < kOutputs && token < p.tokens", 0, "lane < kOutputs"),
    (GEMV, GEMV, "no barrier before the pieces are read", "__syncwarp();", 0, ""),
    (GEMV, GEMV, "the warps share their pieces", "piece_sums + warp * kPieces * kOutputs", 0, "piece_sums"),
    (GEMV, GEMV, "pieces behind the last", "min((p.depth - from) / kPiece, kPieces)", 0, "kPieces"),
    (GEMV, GEMV, "one product for all", "p.matrix[blockIdx.y]", 0, "p.matrix[0]"),
    (HEAD, HEAD, "no wait for the codes", "gpu::wait_for_predecessors();", 0, ""),
    (HEAD, HEAD, "one output too many", "column >= p.columns", 0, "column > p.columns"),
    (HEAD, HEAD, "a token too many is read", "min(t, count - 1)", 0, "t"),
    (HEAD, HEAD, "a token too many is written", "lane == t && t < count", 0, "lane == t"),
    (HEAD, HEAD, "vectors of rows that are none", "p.depth % kVector == 0", 0, "p.depth > 0"),
    (UNPACK, UNPACK, "borrows between bytes", "(codes | 0x80808080U)", 0, "codes"),
    (UNPACK, UNPACK, "one vector too many", "if (k >= depth) return;", 0, "if (k > depth) return;"),
    (UNPACK, UNPACK, "one packed row too many", "first_row + row >= p.lines", 0, "first_row + row > p.lines"),
    (UNPACK, UNPACK, "matrices are not beside each other", "+ p.first_output", 0, ""),
    (UNPACK, UNPACK, "one column too many", "|| k >= depth", 0, "|| k > depth"),
    (UNPACK, UNPACK, "padding that is not zero", "0x55555555U", 0, "0"),
    (UNPACK, BYTES, "no barrier before the tile is read", "__syncthreads();", 0, ""),
    (UNPACK, BYTES, "one row too many is read", "first_row + row < rows", 0, "first_row + row <= rows"),
    (UNPACK, BYTES, "one chunk too many is read", "column < columns", 0, "column <= columns"),
    (ROUND, ROUND, "the sign is not masked", "__float_as_uint(x) & kMagnitudeMask", 0, "__float_as_uint(x)"),
    (ROUND, ROUND, "a scale of zero", "max(absmax_bits, __float_as_uint(kGradientEps))", 0, "absmax_bits"),
    (ROUND, ROUND, "no padding of rows", "r < part.padded / 4", 0, "r < quarter"),
    (ROUND, ROUND, "the first weight scale for all", "op.weight_scale[i]", 0, "op.weight_scale[0]"),
    (ROUND, ROUND, "the first scale for all", "+ part.index]", 0, "]"),
    (ROUND, ROUND, "the lines of all gradients begin at 0", "    first += columns;", 0, ""),
    (ROUND, ROUND, "one packed byte too many", "if (r < quarter) {", 0, "if (r <= quarter) {"),
    (ROUND, ROUND, "no barrier before the warps' magnitudes are read", "__syncthreads();", 0, ""),
    (ROUND, ROUND, "no barrier before the codes are read", "__syncthreads();", 1, ""),
    (ROUND, ROUND, "one token too many", "token < rows && column < columns", 0, "token <= rows && column < columns"),
    (ROUND, ROUND, "one column too many is read", "token < rows && column < columns", 0, "token < rows && column <= columns"),
    (ROUND, ROUND, "one column's scale too many", "warp == 0 && column < columns", 0, "warp == 0 && column <= columns"),
    (ROUND, ROUND, "one column too many is written", "first_column + c >= columns", 0, "first_column + c > columns"),
    (ROUND, ROUND, "no end of the padding", " || first + token >= padded", 0, ""),
    (ROUND, ROUND, "a warp is left out", "int w = 0; w < kWarps", 0, "int w = 0; w < kWarps - 1"),
    (ROUND, ROUND, "one vector of tokens too many", "first_row + row >= padded", 0, "first_row + row > padded"),
    (ROUND, ROUND, "a byte of the transpose is swapped", "0x7632", 0, "0x6732"),
    (ELEMENTS, QUADS, "one element of a tail too many", "if (left > 3) detail::narrow", 0, "if (left > 2) detail::narrow"),
    (ELEMENTS, QUADS, "a tail is written as a whole quad", "aligned && left >= kQuad", 1, "aligned && left > 0"),
    (ELEMENTS, ELEMENTS, "quads are thought to be aligned", "quads_aligned(op.x, op.y)", 0, "true"),
    (ROPE, POSITION, "the position's offset is left out", " + position.offset", 0, ""),
    (ROPE, POSITION, "the position is not read", "*position.base", 0, "0"),
    (DROPOUT, DROPOUT, "one round too few", "round < 10", 0, "round < 9"),
    (DROPOUT, DROPOUT, "half of the counter", "static_cast<std::uint32_t>(block >> 32)", 0, "0"),
    (DROPOUT, DROPOUT, "the last dropped word is kept", "word.y > op.last_dropped", 0, "word.y >= op.last_dropped"),
    (ROPE, ROPE, "no wait for what is turned", "gpu::wait_for_predecessors();", 0, ""),
    (ROPE, ROPE, "values among the keys", "op.values + cache_row", 0, "op.keys + cache_row"),
    (ROPE, ROPE, "rows from the first of the cache on", "position * kv_width", 0, "row * kv_width"),
    (ROPE, ROPE, "queries are appended", "if (kv_head < 0) return;", 0, ""),
    (ROPE, ROPE, "too few threads for the values", " + quads_in(op.kv_heads * op.head_dim)", 0, ""),
    (ROPE, ROPE, "bf16 is taken for f32", "op.x.bf16 ?", 0, "false ?"),
    (ROPE, ROPE, "one head too many", "head >= op.heads", 0, "head > op.heads"),
    (ROPE, ROPE, "the second sequence goes on where the first ends", "row % op.tokens", 0, "row"),
    (ADAMW, ADAMW, "the last of four is left out", "update(factors, decay, g.w, p.w, m.w, v.w);", 0, ""),
    (ADAMW, ADAMW, "every parameter decays", "op.decays ? factors.decay : 1.0f", 0, "factors.decay"),
    (ADAMW, ADAMW, "quads are thought to be aligned", "(kQuad * sizeof(float))", 0, "sizeof(float)"),
    (ADAMW, LIST, "a part goes to the tensor before", "first_part[middle] <= part", 0, "first_part[middle] < part"),
    (CROSS, CROSS, "a sum that keeps its old peak's scale", "sum.total *= expf(sum.peak - peak);", 0, ""),
    (CROSS, CROSS, "what is not there counts as a logit of 0", "aligned, -INFINITY", 0, "aligned"),
    (CROSS, CROSS, "half a warp", "gpu::kWarpSize / 2; distance", 0, "gpu::kWarpSize / 4; distance"),
    (CROSS, CROSS, "one warp of a block", "if constexpr (kRowThreads == gpu::kWarpSize)", 0, "if constexpr (true)"),
    (CROSS, CROSS, "one row too many", "row >= op.rows", 0, "row > op.rows"),
    (CROSS, CROSS, "the target is read by one thread and written by another", "thread == owner", 0, "thread == 0"),
    (CROSS, REDUCE, "no barrier before the warps' sums are read", "__syncthreads();", 0, ""),
    (BF16, TILES, "no barrier between copying and multiplying", "__syncthreads();", 0, ""),
    (BF16, TILES, "no wait for the copies", "gpu::wait_copies<Tile::kStages - 2>();", 0, ""),
    (BF16, TILES, "a wait that is one group too short", "wait_copies<Tile::kStages - 2>", 0, "wait_copies<Tile::kStages - 1>"),
    (BF16, TILES, "no group for the first stages", "gpu::commit_copies();", 0, ""),
    (BF16, TILES, "no group for the later stages", "gpu::commit_copies();", 1, ""),
    (BF16, TILES, "copies into the stage that is being read", "filled = at;", 0, "filled = filled;"),
    (BF16, TILES, "one chunk of K too many", "left_ > 0 ? rows_ : 0", 0, "left_ >= 0 ? rows_ : 0"),
    (BF16, TILES, "one line too many is copied", "i * Tile::kRowStep < lines", 0, "i * Tile::kRowStep <= lines"),
    (BF16, TILES, "halves of the accumulator swapped", "warp.row + index * 8", 0, "warp.row + (index ^ 1) * 8"),
    (BF16, TILES, "ldmatrix of the wrong chunk", "lane / 8 % 2);", 0, "lane / 16);"),
    (BF16, TILES, "fragments of b exchanged", "half * 2 + index % 2", 0, "(1 - half) * 2 + index % 2"),
    (BF16, TILES, "the last stage is left out", "step < steps_; ++step", 0, "step + 1 < steps_; ++step"),
    (BF16, TILES, "the slice after is not loaded", "if (load < kStageSlices)", 0, "if (load + 1 < kStageSlices)"),
    (BF16, BF16, "only three of a quad are added to", "sum.w + y[q].w", 0, "sum.w"),
    (BF16, QUADS, "bf16 results are read as f32", "return x.bf16 ? load_quad", 0, "return false ? load_quad"),
    (BF16, QUADS, "one element behind the last is stored", "if (left > 3) detail::narrow", 0, "detail::narrow"),
    (BF16, ROWS_OUT, "rows at any address", " && y.aligned(kQuad * y.element_bytes())", 0, ""),
    (CONVERT, CONVERT, "no barrier before the tile is read", "__syncthreads();", 0, ""),
    (CONVERT, CONVERT, "one row too many is read", "if (row >= rows) return", 0, "if (row > rows) return"),
    (CONVERT, CONVERT, "one row too many is written", "if (row >= op.rows) return;", 0, "if (row > op.rows) return;"),
    (CONVERT, CONVERT, "the plain copy's padding is left out", "column < padded(op.columns)", 0, "column < op.columns"),
    (CONVERT, CONVERT, "the plain copy has rows of padding", "row < op.rows && column < padded", 0, "column < padded"),
    (CONVERT, CONVERT, "the first row's scale for all", "op.row_scale[row]", 0, "op.row_scale[0]"),
    (CONVERT, CONVERT, "rows are thought to be aligned", "op.columns % kQuad == 0 && quads", 0, "quads"),
    (CONVERT, CONVERT, "the matrix is thought to be aligned", " && quads_aligned(x)", 0, ""),
    (CONVERT, CONVERT, "one row of codes too many", "row >= op.rows ||", 0, "row > op.rows ||"),
    (CONVERT, CONVERT, "one row of weights too many", "row >= op.rows ||", 1, "row > op.rows ||"),
    (CONVERT, CONVERT, "quarters in the wrong order", "four >> (2 * quarter)", 0, "four >> (6 - 2 * quarter)"),
    (CONVERT, CONVERT, "the first group's scale for all", "groups + column / op.group_size", 0, "groups"),
    (CONVERT, CONVERT, "a pair of rows swapped", "pack_bf16x2(even.z, odd.z)", 0, "pack_bf16x2(odd.z, even.z)"),
    (CONVERT, CONVERT, "one column too many", "column >= source.op.columns", 0, "column > source.op.columns"),
    (CONVERT, CONVERT, "one vector of rows too many", "row >= padded(source", 0, "row > padded(source"),
    (SUMS, TILE_SUMS, "the elements are not waited for", "gpu::wait_copies<0>();", 0, ""),
    (SUMS, TILE_SUMS, "no barrier before the elements are read", "__syncwarp();", 0, ""),
    (SUMS, TILE_SUMS, "elements are thought to be aligned", "(kQuad * sizeof(float))", 0, "sizeof(float)"),
    (SUMS, TILE_SUMS, "one element too many", "i < count ? x[i] : 0.0f", 0, "i <= count ? x[i] : 0.0f"),
    (SUMS, TILE_SUMS, "a quad too many", "k + kQuad <= count", 0, "k < count"),
    (SUMS, TILE_SUMS, "no barrier before the staged sums are read", "__syncthreads();", 0, ""),
    (SUMS, TILE_SUMS, "no barrier before the next sums are staged", "__syncthreads();", 1, ""),
    (SUMS, TILE_SUMS, "the next sums are those of this stage", "first + kThreads + threadIdx.x", 0, "first + threadIdx.x"),
    (SUMS, TILE_SUMS, "half of the lanes", "distance = kSumLanes / 2", 0, "distance = kSumLanes / 4"),
    (SUMS, TILE_SUMS, "both halves of a warp are one", "k = static_cast<int>(threadIdx.x) % kSumLanes", 0, "k = static_cast<int>(threadIdx.x) % 32"),
    (SUMS, SUMS, "one tile too many", "tile < list.parts()", 0, "tile <= list.parts()"),
    (SUMS, SUMS, "the second half of a warp writes nothing", "threadIdx.x % kSumLanes == 0", 0, "threadIdx.x % 32 == 0"),
    (SUMS, SUMS, "the sums of the next launch in place of these", "next += list.count;", 0, ""),
    (SUMS, LIST, "the tiles of the next launch in place of these", "parts_before += parts;", 0, ""),
    (STATISTICS, STATISTICS, "one group too many", "group < groups", 0, "group <= groups"),
    (STATISTICS, STATISTICS, "only a group's last tile", "sum += fold_sum_lanes(of_tile)", 0, "sum = fold_sum_lanes(of_tile)"),
    (STATISTICS, STATISTICS, "a tile begins with the one before", "of_tile = 0.0;", 1, ""),
    (STATISTICS, STATISTICS, "no barrier before the next piece", "__syncwarp();", 0, ""),
    (STATISTICS, STATISTICS, "no lower bound", "bounded_scale(mean)", 0, "mean"),
    (STATISTICS, STATISTICS, "the mean of magnitudes", "scale ? SumTerm::magnitude : SumTerm::value", 0, "SumTerm::magnitude"),
    (MEDIAN, MEDIAN, "no barrier before the counts", "__syncthreads();", 0, ""),
    (MEDIAN, MEDIAN, "no barrier before the counts are added up", "__syncthreads();", 1, ""),
    (MEDIAN, MEDIAN, "no __syncwarp before the counts", "__syncwarp();", 0, ""),
    (MEDIAN, MEDIAN, "no __syncwarp before the counts are read", "__syncwarp();", 1, ""),
    (MEDIAN, MEDIAN, "every element counts for every digit", "if (magnitude >> shift >> bits == prefix) ", 0, ""),
    (MEDIAN, MEDIAN, "the value within its lane", "+= static_cast<std::uint32_t>(lane * kOfLane)", 0, "+= 0"),
    (MEDIAN, MEDIAN, "the value before the right one", "rank >= of_lane", 0, "rank > of_lane"),
    (MEDIAN, MEDIAN, "a scan that wraps around", "if (lane >= distance) ", 0, ""),
    (MEDIAN, MEDIAN, "the upper median of all", "(op.elements - 1) / 2", 0, "op.elements / 2"),
    (MEDIAN, MEDIAN, "the upper median of a group", "(size - 1) / 2", 0, "size / 2"),
    (MEDIAN, MEDIAN, "one vector too many", "i < vectors", 0, "i <= vectors"),
    (MEDIAN, MEDIAN, "one group too many", "group >= groups", 0, "group > groups"),
    (MEDIAN, MEDIAN, "infinity is not looked for", "if (largest >= kInfinityBits) ", 0, "if (false) "),
    (CODES, CODES, "one word too many is packed", "word < words", 0, "word <= words"),
    (CODES, CODES, "no barrier before the shared constant is read", "__syncthreads();", 0, ""),
    (CODES, CODES, "one word too many is unpacked", "word >= words", 0, "word > words"),
    (CODES, CODES, "only one bit of a code is compared", "change | change >> 1", 0, "change"),
    (CODES, CODES, "all quarters are packed with the first one's groups", "group + q * groups_of_quarter", 0, "group"),
    (CODES, CODES, "all quarters are unpacked with the first one's groups", "group + q * groups_of_quarter", 1, "group"),
    (CODES, CODES, "changes are added to what was there", ".flips = 0", 0, ".flips += 0"),
    (CODES, CODES, "a tie rounds away from 0", "scaled > 0.5f", 0, "scaled >= 0.5f"),
    (CODES, CODES, "the sign of 0 is +", "w - operand > 0.0f", 0, "w - operand >= 0.0f"),
    (CODES, CODES, "one vector too many is counted", "i < vectors", 0, "i <= vectors"),
    (CODES, CODES, "one byte too many is counted", "i < bytes", 0, "i <= bytes"),
    (BLEND, BLEND, "the third element twice", "quantized.w, op.amount", 0, "quantized.z, op.amount"),
    (EMBEDDING, EMBEDDING, "one row too many", "row < op.rows", 0, "row <= op.rows"),
    (EMBEDDING, EMBEDDING, "tokens below 0 are read", "token >= 0 && ", 0, ""),
    (EMBEDDING, EMBEDDING, "no barrier before the votes are read", "__syncthreads();", 0, ""),
    (EMBEDDING, EMBEDDING, "no barrier before the found rows are read", "__syncthreads();", 1, ""),
    (EMBEDDING, EMBEDDING, "tokens behind the last are read", "at < count && ", 0, ""),
    (EMBEDDING, EMBEDDING, "a row's place counts itself", "(1U << lane) - 1", 0, "(2U << lane) - 1"),
    (EMBEDDING, EMBEDDING, "rows that are not there", "i + kAhead <= number", 0, "i + 2 <= number"),
    (EMBEDDING, EMBEDDING, "the table is read again", "if (number > 0 && !any) ", 0, "if (number > 0) "),
    (OPERANDS, OPERANDS, "the padding is not zeros", "if (at.first < op.head_dim) {", 0, "if (true) {"),
    (OPERANDS, OPERANDS, "keys behind the last are converted", "at.token >= position_of(op.first_position) + op.queries", 0, "at.token >= op.room"),
    (OPERANDS, OPERANDS, "infinite values stay", "if (!finite(v)) {", 0, "if (false) {"),
    (OPERANDS, OPERANDS, "NaN values are forgotten", "k = make_uint4(kNanPair, kNanPair, kNanPair, kNanPair);", 0, ""),
    (OPERANDS, OPERANDS, "only the lower of a pair is looked at", " && (pair & kInfinityHigh) != kInfinityHigh", 0, ""),
    (FORWARD, ATTENTION, "one row too many is copied", "(row) < left", 0, "(row) <= left"),
    (FORWARD, ATTENTION, "rows of the tile are read where others lie", "exchange<kDim>(line) ^ side", 0, "side"),
    (FORWARD, ATTENTION, "swapped registers of the keys", "low[2] = {pair[0], pair[1]}", 0, "low[2] = {pair[0], pair[2]}"),
    (FORWARD, ATTENTION, "swapped registers of the values", "low[2] = {pair[0], pair[1]}", 1, "low[2] = {pair[1], pair[0]}"),
    (FORWARD, ATTENTION, "ldmatrix of the wrong chunk", "lane / 8 % 2", 0, "lane / 16"),
    (FORWARD, ATTENTION, "swapped registers of the weights", "pack_bf16x2(sums[2 * j][2], sums[2 * j][3])", 0, "pack_bf16x2(sums[2 * j + 1][2], sums[2 * j + 1][3])"),
    (FORWARD, ATTENTION, "one row too many is written", "row >= end", 0, "row > end"),
    (FORWARD, ATTENTION, "the padding is written", "if (first + j * 8 >= head_dim) continue;", 0, ""),
    (FORWARD, FORWARD, "no wait for the keys", "gpu::wait_copies<0>();", 0, ""),
    (FORWARD, FORWARD, "no wait for the values", "gpu::wait_copies<0>();", 1, ""),
    (FORWARD, FORWARD, "no barrier before the keys are read", "__syncthreads();", 0, ""),
    (FORWARD, FORWARD, "no barrier before the values are read", "__syncthreads();", 1, ""),
    (FORWARD, FORWARD, "the next key is seen", "key > position[i / 2]", 0, "key > position[i / 2] + 1"),
    (FORWARD, FORWARD, "a tile that ends at the first query is not masked", "first_key + kKeys - 1 > warp_position", 0, "first_key + kKeys - 1 > warp_position + 1"),
    (FORWARD, FORWARD, "the sums keep their old base", "out[j][half * 2] *= rescale;", 0, ""),
    (FORWARD, FORWARD, "the maximum of two lanes", "return fmaxf(x, __shfl_xor_sync(gpu::kWholeWarp, x, 2));", 0, "return x;"),
    (FORWARD, FORWARD, "the sum of two lanes", "return x + __shfl_xor_sync(gpu::kWholeWarp, x, 2);", 0, "return x;"),
    (FORWARD, FORWARD, "the first query's key/value head for all", "head / (op.heads / op.kv_heads)", 0, "0"),
    (FORWARD, FORWARD, "one logsumexp too many", "query >= op.queries", 0, "query > op.queries"),
    (FORWARD, FORWARD, "the last tile of keys is left out", "first_key < end_key; first_key += kKeys", 0, "first_key + kKeys < end_key; first_key += kKeys"),
    (GRADIENTS, GRADIENTS, "padding that nobody writes", "if (lane != 0) return;", 0, "if (lane != 0 || !inside) return;"),
    (GRADIENTS, GRADIENTS, "one row of delta too many", "token < op.tokens", 0, "token <= op.tokens"),
    (GRADIENTS, GRADIENTS, "delta of the next head too", "e < op.head_dim", 0, "e <= op.head_dim"),
    (GRADIENTS, GRADIENTS, "delta of half the lanes", "distance = kRowLanes / 2", 0, "distance = kRowLanes / 4"),
    (GRADIENTS, GRADIENTS, "no wait for keys and values", "gpu::wait_copies<0>();", 0, ""),
    (GRADIENTS, GRADIENTS, "no wait for queries and dout", "gpu::wait_copies<0>();", 1, ""),
    (GRADIENTS, GRADIENTS, "no barrier before keys and values are read", "__syncthreads();", 0, ""),
    (GRADIENTS, GRADIENTS, "no barrier before queries and dout are read", "__syncthreads();", 1, ""),
    (GRADIENTS, GRADIENTS, "a query does not see itself", "key <= query[i / 2]", 0, "key < query[i / 2]"),
    (GRADIENTS, GRADIENTS, "a key is not seen by its own query", "key[i / 2] <= query", 0, "key[i / 2] < query"),
    (GRADIENTS, GRADIENTS, "the first delta of a pair for both", "i % 2 == 0 ? pair.y : pair.w", 0, "pair.y"),
    (GRADIENTS, GRADIENTS, "the first logsumexp of a pair for both", "i % 2 == 0 ? pair.x : pair.z", 0, "pair.x"),
    (GRADIENTS, GRADIENTS, "only the first query head counts", "head < group; stage ^= 1", 0, "head < 1; stage ^= 1"),
    (GRADIENTS, GRADIENTS, "half of the rows' logsumexp", "threadIdx.x < kPassing / 2", 0, "threadIdx.x < kPassing / 4"),
    (GRADIENTS, GRADIENTS, "both halves of the queries' columns are the first", "keys + first_column", 0, "keys"),
    (GRADIENTS, GRADIENTS, "both halves of the values' columns are the first", "douts + first_column", 0, "douts"),
    (GRADIENTS, GRADIENTS, "keys are copied over those being read", "start_stage(stage ^ 1, first_key + kPassing)", 0, "start_stage(stage, first_key + kPassing)"),
    (GRADIENTS, GRADIENTS, "queries are copied over those being read", "start_stage(stage ^ 1, head, tile)", 0, "start_stage(stage, head, tile)"),
    (DECODE, DECODE, "no wait for the queries", "gpu::wait_for_predecessors();", 0, ""),
    (DECODE, DECODE, "no wait for the stretches", "gpu::wait_for_predecessors();", 1, ""),
    (DECODE, DECODE, "no barrier before the scores are read", "__syncthreads();", 0, ""),
    (DECODE, DECODE, "no barrier before the weights are read", "__syncthreads();", 1, ""),
    (DECODE, DECODE, "no barrier before the warps' sums are read", "__syncthreads();", 2, ""),
    (DECODE, DECODE, "no barrier before the folded sums are read", "__syncthreads();", 3, ""),
    (DECODE, DECODE, "the next key is seen", "row % op.queries + 1;", 0, "row % op.queries + 2;"),
    (DECODE, DECODE, "a key behind the last counts", "key < keys ? score[0] : -INFINITY", 0, "score[0]"),
    (DECODE, DECODE, "one key too many is read", "if (inside && key < keys) load_elements(op.v", 0, "if (inside && key <= keys) load_elements(op.v"),
    (DECODE, DECODE, "heads of the next key/value head", "min(kHeads, group - within)", 0, "kHeads"),
    (DECODE, DECODE, "lanes beyond the head", "const bool inside = element < op.head_dim;", 0, "const bool inside = true;"),
    (DECODE, DECODE, "the lower half of the heads twice", "if (upper) first += count;", 0, ""),
    (DECODE, DECODE, "the sum of one group of lanes", "add_lanes<gpu::kWarpSize / 2, kLanes>(sum)", 0, "0"),
    (DECODE, DECODE, "a stretch with its own base", "exp2_approximate(of_stretch.x - largest)", 0, "exp2_approximate(0.0f)"),
    (DECODE, DECODE, "only the first stretches are folded", "i < stretches; i += kFoldWarps", 0, "i < min(stretches, kFoldWarps); i += kFoldWarps"),
    (DECODE, DECODE, "the first warp's weights alone", "total_weight += weights[w];", 0, ""),
]


def plant(text, old, occurrence, new):
    """`text` with one occurrence of `old` replaced."""
    parts = text.split(old)
    if len(parts) < occurrence + 2:
        raise SystemExit(f"planted_bugs.py: occurrence {occurrence} of '{old}' is not there any more: mend the list")
    return old.join(parts[:occurrence + 1]) + new + old.join(parts[occurrence + 1:])


def shell_words(command):
    """The words of a command as CMake writes it: without `: &&`, and without ccache."""
    words = shlex.split(command.replace(": &&", "").replace("&& :", ""))
    return words[1:] if words[0].endswith("ccache") else words


def compiler_of(compiles, kernel):
    """The command that compiles a kernel, up to its output and source: the tests are short, so what counts is the time of the compiler."""
    words = compiles[kernel]
    flags = [word for i, word in enumerate(words) if word not in ("-MD", "-MT", "-MF", "-o", "-c")
             and words[i - 1] not in ("-MT", "-MF", "-o", "-c")]
    return ["-O1" if word == "-O3" else word for word in flags] + ["-w"]


def precompile(build, compiles, folder):
    """Compiles what all kernels include first, and no bug is planted into; returns the file for -include."""
    header = Path(folder, "gpu.h")
    header.write_text('#include "cuda/gpu.h"\n', "utf-8")
    words = [word for word in compiler_of(compiles, GEMM) if word != "-xc++"]
    subprocess.run([*words, "-x", "c++-header", "-c", str(header), "-o", f"{header}.gch"], cwd=build, check=True)
    return str(header)


def fails(program, executions, *tests):
    """Whether these tests fail, or have no end, in "few" executions or in "all"."""
    environment = dict(os.environ, BITNET_EMULATOR_EXECUTIONS=executions)
    try:
        return subprocess.run([program, "--abort", *tests], env=environment, capture_output=True, timeout=120,
                              check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def answer(build, compiles, link, precompiled, bug):
    """None if the tests of a program with this bug pass; else what became of it."""
    kernel, file, _, old, occurrence, new = bug
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder, file)
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_text(plant((ROOT / file).read_text("utf-8"), old, occurrence, new), "utf-8")
        source = str(changed if kernel == file else ROOT / kernel)
        words = compiler_of(compiles, kernel)
        words[1:1] = [f"-I{folder}", "-include", precompiled]  # a changed header is found before the right one
        if subprocess.run([*words, "-c", source, "-o", f"{folder}/bug.o"], cwd=build, capture_output=True, check=False).returncode != 0:
            return "does not compile"  # which proves nothing about the tests
        program = f"{folder}/tests"
        words = list(link)
        at = words.index("-o") + 1
        words[at:at + 1] = [program, f"{folder}/bug.o"]  # before the library that holds the right one
        subprocess.run(words, cwd=build, check=True)
        # Its own tests first, in few executions: that finds nearly all.
        own = f"The *[#{Path(kernel).stem.replace('_kernels', '')}_test]~[speed]"
        if fails(program, "few", "-#", own) or fails(program, "all", "-#", own) or fails(program, "all", "~[speed]The *"):
            return "found"
    return None


def main():
    build = Path(sys.argv[1]).resolve()
    commands = json.loads((build / "compile_commands.json").read_text("utf-8"))
    compiles = {str(Path(c["file"]).relative_to(ROOT)): shell_words(c["command"]) for c in commands
                if c["file"].endswith(".cu") and "bitnet_emulated_kernels" in c["command"]}
    listed = subprocess.run(["ninja", "-t", "commands", TARGET], cwd=build, capture_output=True, text=True, check=True)
    links = [line for line in listed.stdout.splitlines() if f"-o tests/cuda_emulator/{TARGET} " in line + " "]
    link = shell_words(links[-1].split(" && cd ")[0])
    survivors = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        precompiled = precompile(build, compiles, folder)
        for bug, result in zip(BUGS, pool.map(lambda bug: answer(build, compiles, link, precompiled, bug), BUGS)):
            survivors += result != "found"
            print(f"{bug[1]}: {bug[2]}: {result or 'NOT FOUND'}", flush=True)
    print(f"{len(BUGS)} planted bugs, {survivors} not found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
