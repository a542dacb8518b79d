// SPDX-License-Identifier: MIT
// The ways to products of int8, all with the same bits: our own kernels with large or with small
// tiles, or, forward, cuBLASLt, whose int32 sums another kernel brings back to reals.
#include <algorithm>
#include <bit>

#include "cuda/cuda_backend_impl.h"
#include "cuda/gradient_gemm.h"
#include "cuda/int8_gemm.h"
#include "cuda/matrix_products.h"
#include "cuda/packed_gemm.h"
#include "cuda/unpack_codes.h"

namespace bitnet::cuda {
namespace {

constexpr const char* kOperation = "the int8 product";

// Multiplications below which the ways differ by no more than a launch or two: not worth a probe.
constexpr std::int64_t kProbedProducts = std::int64_t{1} << 25;

constexpr std::int64_t kBlockRowStep = 256;  // which every tile divides

// What the time of a product depends on beside its shape; the families do not share a number.
enum Family : std::int64_t { kPlain = 0, kPacked = 100, kGradient = 200 };

// The rows are those of a batch or of a prompt, of any number: within a factor of 2 they share what
// was found.
Probe::Key key_of(std::int64_t family, int rows, std::int64_t columns, int depth) {
  return {family, std::bit_width(static_cast<unsigned>(rows) - 1), columns, depth};
}

// Rows of a block: of as many sums as are brought back, or tried, at once.
int block_rows(int all_rows, std::int64_t columns, std::int64_t block_sums) {
  const std::int64_t rows = block_sums / columns / kBlockRowStep * kBlockRowStep;
  return static_cast<int>(std::min<std::int64_t>(std::max(rows, kBlockRowStep), all_rows));
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

Int8GemmTile tile_of(Int8Route route) {
  return route == Int8Route::small_tile ? Int8GemmTile::small : Int8GemmTile::large;
}

std::int64_t all_columns(const PackedGemv& p) {
  std::int64_t columns = 0;
  for (int i = 0; i < p.products; ++i) columns += p.matrix[i].columns;
  return columns;
}

}  // namespace

Int8Route CudaBackend::quickest_route(const Probe::Key& key, std::size_t routes,
                                      std::int64_t products,
                                      const std::function<bool(Int8Route)>& issue) {
  if (!int8_probe_.forced() && products < kProbedProducts) return Int8Route::small_tile;
  return static_cast<Int8Route>(int8_probe_.quickest(
      key, routes, static_cast<std::size_t>(Int8Route::large_tile), stream_,
      [&](std::size_t candidate) { return issue(static_cast<Int8Route>(candidate)); }));
}

// --- int8 weights, and packed ones with groups, unpacked ---

bool CudaBackend::issue_int8_product(const Int8Gemm& p, Int8Route route) {
  if (route != Int8Route::cublaslt) {
    check(int8_gemm(p, tile_of(route), stream_), kOperation);
    return true;
  }
  if (has_groups(p.kind) || p.columns % 4 != 0) return false;
  const int rows = block_rows(p.rows, p.columns, int8_block_sums_);
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
  Workspace::Frame frame(workspace_);
  Int8Gemm trial{};  // of at most a block, elsewhere: y may be what is added to
  const Int8Route route = quickest_route(
      key_of(kPlain + static_cast<int>(p.kind), p.rows, p.columns, p.depth), kInt8Routes,
      std::int64_t{p.rows} * p.columns * p.depth, [&](Int8Route candidate) {
        if (trial.y.data == nullptr) {
          trial = p;
          trial.rows = block_rows(p.rows, p.columns, int8_block_sums_);
          trial.y.data = frame.get<float>(std::int64_t{trial.rows} * p.columns);
        }
        return issue_int8_product(trial, candidate);
      });
  if (!issue_int8_product(p, route)) issue_int8_product(p, Int8Route::large_tile);
}

// --- packed weights with a single scale ---

bool CudaBackend::issue_packed_product(const PackedGemv& p, Int8Route route) {
  if (route != Int8Route::cublaslt) {
    const auto tile =
        route == Int8Route::small_tile ? PackedGemmTile::small : PackedGemmTile::large;
    check(packed_gemm(p, tile, stream_), kOperation);
    return true;
  }
  for (int i = 0; i < p.products; ++i) {
    const PackedMatrix& m = p.matrix[i];
    Workspace::Frame frame(workspace_);
    auto* const trits = frame.get<std::int8_t>(std::int64_t{m.columns} * p.depth);
    check(unpack_codes(m.packed, m.columns / 4, p.depth, trits, stream_), kOperation);
    const Int8Gemm gemm{p.codes,        trits, p.tokens,    m.columns,  p.depth, Int8Scale::tensor,
                        m.weight_scale, 0,     p.act_scale, m.residual, m.y};
    if (issue_int8_product(gemm, route)) continue;
    if (i == 0) return false;
    check(int8_gemm(gemm, Int8GemmTile::small, stream_), kOperation);
  }
  return true;
}

void CudaBackend::packed_product(const PackedGemv& p) {
  const std::int64_t columns = all_columns(p);
  Workspace::Frame frame(workspace_);
  PackedGemv trial{};  // as above
  const Int8Route route =
      quickest_route(key_of(kPacked + p.products, p.tokens, columns, p.depth), kInt8Routes,
                     p.tokens * columns * p.depth, [&](Int8Route candidate) {
                       if (trial.products == 0) {
                         trial = p;
                         trial.tokens = block_rows(p.tokens, columns, int8_block_sums_);
                         for (int i = 0; i < p.products; ++i) {
                           PackedMatrix& m = trial.matrix[i];
                           m.y.data = frame.get<float>(std::int64_t{trial.tokens} * m.columns);
                         }
                       }
                       return issue_packed_product(trial, candidate);
                     });
  if (!issue_packed_product(p, route)) issue_packed_product(p, Int8Route::large_tile);
}

// --- gradients ---

void CudaBackend::gradient_product(const GradientGemm& p) {
  const auto issue = [&](const GradientGemm& product, Int8Route route) {
    const auto tile =
        route == Int8Route::small_tile ? GradientGemmTile::small : GradientGemmTile::large;
    check(gradient_gemm(product, tile, stream_), kOperation);
    return true;
  };
  Workspace::Frame frame(workspace_);
  GradientGemm trial{};          // as above
  const std::size_t routes = 2;  // not by cuBLASLt, which has no groups
  const Int8Route route = quickest_route(
      key_of(kGradient + std::min(p.groups, 99), p.rows, p.columns, p.depth), routes,
      std::int64_t{p.rows} * p.columns * p.depth, [&](Int8Route candidate) {
        if (trial.parts == 0) {
          trial = p;
          trial.rows = block_rows(p.rows, p.columns, int8_block_sums_);
          trial.parts = 1;
          trial.part[0].y.data = frame.get<float>(std::int64_t{trial.rows} * p.columns);
          trial.part[0].addend = nullptr;
        }
        return issue(trial, candidate);
      });
  issue(p, route);
}

}  // namespace bitnet::cuda
