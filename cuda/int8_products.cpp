// SPDX-License-Identifier: MIT
// The ways to an int8 product, all with the same bits: our own kernel with large or with small
// tiles, or cuBLASLt, whose int32 sums another kernel brings back to reals.
#include <algorithm>
#include <bit>

#include "cuda/cuda_backend_impl.h"
#include "cuda/int8_gemm.h"
#include "cuda/matrix_products.h"

namespace bitnet::cuda {
namespace {

constexpr const char* kOperation = "the int8 product";

// Multiplications below which the ways differ by no more than a launch or two: not worth a probe.
constexpr std::int64_t kProbedProducts = std::int64_t{1} << 25;

constexpr std::int64_t kBlockRowStep = 256;  // which every tile divides

// Rows of a block: of as many sums as are brought back at once.
int block_rows(const Int8Gemm& p, std::int64_t block_sums) {
  const std::int64_t rows = block_sums / p.columns / kBlockRowStep * kBlockRowStep;
  return static_cast<int>(std::min<std::int64_t>(std::max(rows, kBlockRowStep), p.rows));
}

// Rows [first, first + rows) of a product without groups.
Int8Gemm rows_of(const Int8Gemm& p, int first, int rows) {
  Int8Gemm block = p;
  block.rows = std::min(rows, p.rows - first);
  block.a += std::int64_t{first} * p.depth;
  block.row_scale += first;
  if (p.addend != nullptr) block.addend += std::int64_t{first} * p.columns;
  block.y = p.y.from(std::int64_t{first} * p.columns);
  return block;
}

}  // namespace

bool CudaBackend::issue_int8_product(const Int8Gemm& p, Int8Route route) {
  if (route != Int8Route::cublaslt) {
    const auto tile = route == Int8Route::large_tile ? Int8GemmTile::large : Int8GemmTile::small;
    check(int8_gemm(p, tile, stream_), kOperation);
    return true;
  }
  if (has_groups(p.kind) || p.columns % 4 != 0) return false;
  const int rows = block_rows(p, int8_block_sums_);
  Workspace::Frame frame(workspace_);
  auto* const sums = frame.get<std::int32_t>(std::int64_t{rows} * p.columns);
  for (int first = 0; first < p.rows; first += rows) {
    const Int8Gemm block = rows_of(p, first, rows);
    if (products_->int8({block.rows, block.columns, block.depth}, block.a, block.b, sums)) {
      check(write_sums(block, sums, stream_), kOperation);
    } else if (first == 0) {
      return false;
    } else {  // has no algorithm for the last rows
      check(int8_gemm(block, Int8GemmTile::small, stream_), kOperation);
    }
  }
  return true;
}

void CudaBackend::int8_product(const Int8Gemm& p) {
  const std::int64_t products = std::int64_t{p.rows} * p.columns * p.depth;
  Int8Route route = Int8Route::small_tile;
  if (int8_probe_.forced() || products >= kProbedProducts) {
    // The rows are those of a batch or of a prompt, of any number: within a factor of 2 they share
    // what was found.
    const auto magnitude = std::bit_width(static_cast<unsigned>(p.rows) - 1);
    const Probe::Key key = {static_cast<std::int64_t>(p.kind), magnitude, p.columns, p.depth};
    const Int8Route unprobed = Int8Route::large_tile;
    Workspace::Frame frame(workspace_);
    Int8Gemm trial{};  // of at most a block, elsewhere: y may be what is added to
    route = static_cast<Int8Route>(int8_probe_.quickest(
        key, kInt8Routes, static_cast<std::size_t>(unprobed), stream_, [&](std::size_t candidate) {
          if (trial.y.data == nullptr) {
            trial = p;
            if (!has_groups(p.kind)) trial.rows = block_rows(p, int8_block_sums_);
            trial.y.data = frame.get<float>(std::int64_t{trial.rows} * p.columns);
          }
          return issue_int8_product(trial, static_cast<Int8Route>(candidate));
        }));
  }
  if (!issue_int8_product(p, route)) issue_int8_product(p, Int8Route::large_tile);
}

}  // namespace bitnet::cuda
