// SPDX-License-Identifier: MIT
// Two stages. First dy is read once and rounded twice, by rows for dx and by columns of a stretch
// of tokens (a tile) for dw, while x is laid out in panels. Then come the products: with the rows'
// codes q and the weights' trits, with the columns' codes c and those of x,
//   dx[t, k] = sum over the products of (grad_scale[t] * weight_scale) * float(q[t] · trit[:, k])
//   dw[n, k] += over the tiles, ascending, column_scale[tile, n] * float(c[tile, n] · codes[:, k])
// each by an fma. A task's scratch is its stack; what the stages share is in the backend's.
#include "core/cpu/integer_gradients.h"

#include <algorithm>

#include "core/backend/packed_shape.h"
#include "core/cpu/dense_backward.h"
#include "core/cpu/panel_scope.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kAbsmaxRows = 8;  // rows of dy that are scanned, then rounded from the cache
constexpr std::int64_t kLayoutRows = 16;  // rows of x that are laid out together, a multiple of 4
constexpr std::int64_t kChunkRows = 128;  // packed rows of a panel of dx: 32 KB
constexpr std::int64_t kBlockRows = 24;   // rows between a product and its write-back, rounded up
constexpr std::int64_t kMostBlockRows = 32;  // to a block of the panel kernels
constexpr std::int64_t kDwOutputs = 96;      // of a task of dw: a multiple of blocks of rows,
constexpr std::int64_t kDwPanels = 2;        //   by 128 columns
static_assert(kGradientPanel == kPanelWidth);

// Hands out parts of one stretch of memory; without memory it measures how much is needed.
class Parts {
 public:
  explicit Parts(std::byte* memory) : memory_(memory) {}
  template <typename T>
  T* take(std::int64_t count) {
    T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += tile_count(count * static_cast<std::int64_t>(sizeof(T)), 64) * 64;
    return part;
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  std::int64_t bytes_ = 0;
};

struct GradientScale {
  float scale, inv_scale;
};

// Comparisons in this form keep a NaN in the scale and out of inv_scale; 127 / infinity is 0.
GradientScale scale_of(float absmax) {
  const float bounded = absmax < kGradientEps ? kGradientEps : absmax;
  const float inv_scale = 127.0f / bounded;
  return {bounded / 127.0f, inv_scale > 0.0f ? inv_scale : 0.0f};
}

// One product's operands and its rounded dy.
struct Product {
  const float* dy;             // [rows, N]
  const std::uint8_t* packed;  // [N / 4, K]
  float* dw;                   // [N, K], or null
  float weight_scale;
  std::int64_t outputs, quarter, chunks;  // N, N / 4, panels along N
  bool has_dx;

  std::int8_t* row_codes;                    // [rows, N], in the order of the panels
  std::int32_t* row_sums;                    // [chunks, rows], of the codes
  float* row_scales;                         // [rows], grad_scale * weight_scale
  std::int8_t* column_codes;                 // [tiles, N, kGradientTile]
  std::int32_t* column_sums;                 // [tiles, N]
  float *column_scales, *column_inv_scales;  // [tiles, N]
};

class IntegerGradients {
 public:
  IntegerGradients(const PanelKernels& panels, const GradientKernels& kernels,
                   ConstTensorView codes, ConstTensorView act_scale,
                   std::span<const BitLinearGradient> gradients, TensorView dx)
      : panel_kernels_(panels),
        kernels_(kernels),
        block_rows_(tile_count(kBlockRows, panels.block_rows) * panels.block_rows),
        codes_(codes.as<std::int8_t>().data()),
        act_scale_(act_scale.as<float>().data()),
        gradients_(gradients),
        dx_(dx.as<float>().data()),
        rows_(codes.dim(0)),
        inputs_(codes.dim(1)),
        tiles_(tile_count(rows_, kGradientTile)),
        input_panels_(inputs_ / kPanelWidth),
        column_blocks_(tile_count(input_panels_, kDwPanels)) {
    for (const BitLinearGradient& g : gradients) {
      const PackedShape shape = packed_shape(g.packed, g.weight_scale);
      check_backward(codes.shape(), Shape{shape.outputs, shape.inputs}, g.dy, dx, g.dw);
      has_dx_ = has_dx_ || (dx_ != nullptr && shape.single_scale);
      has_dw_ = has_dw_ || g.dw;
    }
  }

  bool has_dx() const { return has_dx_; }

  void run(const ThreadTeam& team, Scratch& scratch) {
    Parts measured(nullptr);
    place(measured);
    Parts parts(scratch.get<std::byte>(measured.bytes()));
    place(parts);

    const auto products = static_cast<std::int64_t>(gradients_.size());
    const std::int64_t roundings = products * tiles_;
    team.run(roundings + (has_dw_ ? tiles_ : 0), [&](std::int64_t task) {
      if (task < roundings) {
        round_tile(products_[task / tiles_], task % tiles_);
      } else {
        lay_out_input(task - roundings);
      }
    });

    const std::int64_t dx_tasks = has_dx_ ? tiles_ * input_panels_ : 0;
    std::int64_t dw_tasks = 0;
    for (std::int64_t p = 0; p < products; ++p) dw_tasks += dw_task_count(products_[p]);
    team.run(dx_tasks + dw_tasks, [&](std::int64_t task) {
      const PanelScope scope(panel_kernels_);
      if (task < dx_tasks) return input_gradient(task / input_panels_, task % input_panels_);
      task -= dx_tasks;
      const Product* product = products_;
      for (; task >= dw_task_count(*product); ++product) task -= dw_task_count(*product);
      weight_gradient(*product, task / column_blocks_ * kDwOutputs, task % column_blocks_);
    });
  }

 private:
  std::int64_t dw_task_count(const Product& p) const {
    return p.dw == nullptr ? 0 : tile_count(p.outputs, kDwOutputs) * column_blocks_;
  }
  std::int64_t tile_tokens(std::int64_t tile) const {
    return std::min(kGradientTile, rows_ - tile * kGradientTile);
  }
  std::int8_t* input_panel(std::int64_t tile, std::int64_t panel) const {
    return panels_of_x_ + (tile * input_panels_ + panel) * (kGradientTile / 4 * kPanelStep);
  }

  void place(Parts& parts) {
    products_ = parts.take<Product>(static_cast<std::int64_t>(gradients_.size()));
    panels_of_x_ = parts.take<std::int8_t>(has_dw_ ? tiles_ * kGradientTile * inputs_ : 0);
    for (std::size_t i = 0; i < gradients_.size(); ++i) {
      const BitLinearGradient& g = gradients_[i];
      const PackedShape shape = packed_shape(g.packed, g.weight_scale);
      Product p{};
      p.dy = g.dy.as<float>().data();
      p.packed = g.packed.as<std::uint8_t>().data();
      p.dw = g.dw.as<float>().data();
      p.weight_scale = g.weight_scale.as<float>()[0];
      p.outputs = shape.outputs;
      p.quarter = shape.quarter;
      p.chunks = tile_count(shape.quarter, kChunkRows);
      p.has_dx = dx_ != nullptr && shape.single_scale;
      if (p.has_dx) {
        p.row_codes = parts.take<std::int8_t>(rows_ * p.outputs);
        p.row_sums = parts.take<std::int32_t>(p.chunks * rows_);
        p.row_scales = parts.take<float>(rows_);
      }
      const std::int64_t columns = tiles_ * p.outputs;
      p.column_scales = parts.take<float>(columns);
      p.column_inv_scales = parts.take<float>(columns);
      if (p.dw != nullptr) {
        p.column_codes = parts.take<std::int8_t>(columns * kGradientTile);
        p.column_sums = parts.take<std::int32_t>(columns);
      }
      if (products_ != nullptr) products_[i] = p;
    }
  }

  // --- first stage ---

  void round_tile(const Product& p, std::int64_t tile) const {
    const std::int64_t first = tile * kGradientTile, end = first + tile_tokens(tile);
    float* scales = p.column_scales + tile * p.outputs;  // at first the columns' absmax
    float* inv_scales = p.column_inv_scales + tile * p.outputs;
    std::fill_n(scales, p.outputs, 0.0f);
    for (std::int64_t t = first; t < end; t += kAbsmaxRows) {
      const std::int64_t count = std::min(kAbsmaxRows, end - t);
      float row_absmax[kAbsmaxRows];
      kernels_.absmax(p.dy + t * p.outputs, count, p.outputs, act_scale_ + t, row_absmax, scales);
      if (!p.has_dx) continue;
      for (std::int64_t i = 0; i < count; ++i) round_row(p, t + i, row_absmax[i]);
    }
    if (p.dw == nullptr) return;
    for (std::int64_t n = 0; n < p.outputs; ++n) {
      const GradientScale s = scale_of(scales[n]);
      scales[n] = s.scale;
      inv_scales[n] = s.inv_scale;
    }
    kernels_.quantize_columns(p.dy + first * p.outputs, end - first, p.outputs, act_scale_ + first,
                              inv_scales, p.column_codes + tile * p.outputs * kGradientTile,
                              p.column_sums + tile * p.outputs);
  }

  void round_row(const Product& p, std::int64_t t, float absmax) const {
    const GradientScale s = scale_of(absmax);
    p.row_scales[t] = s.scale * p.weight_scale;
    for (std::int64_t c = 0; c < p.chunks; ++c) {
      const std::int64_t r = c * kChunkRows;
      p.row_sums[c * rows_ + t] = kernels_.quantize_row(
          p.dy + t * p.outputs + r, p.quarter, std::min(kChunkRows, p.quarter - r), s.inv_scale,
          p.row_codes + t * p.outputs + 4 * r);
    }
  }

  // Few rows at a time: each is read from its begin to its end, as memory likes it.
  void lay_out_input(std::int64_t tile) const {
    const std::int8_t* rows = codes_ + tile * kGradientTile * inputs_;
    const std::int64_t tokens = tile_tokens(tile);
    for (std::int64_t t = 0; t < tokens; t += kLayoutRows) {
      for (std::int64_t i = 0; i < input_panels_; ++i) {
        panel_kernels_.weight_gradient_panel(rows + t * inputs_ + i * kPanelWidth, inputs_,
                                             std::min(kLayoutRows, tokens - t),
                                             input_panel(tile, i) + t / 4 * kPanelStep);
      }
    }
  }

  // --- second stage ---

  // dx of a tile's tokens and a panel's columns.
  void input_gradient(std::int64_t tile, std::int64_t panel_index) const {
    alignas(64) std::uint8_t panel[kChunkRows * kPanelStep];
    alignas(64) std::int32_t acc[kGradientTile * kPanelWidth];
    const std::int64_t first = tile * kGradientTile, tokens = tile_tokens(tile);
    const std::int64_t column = panel_index * kPanelWidth;
    bool add = false;
    for (std::size_t i = 0; i < gradients_.size(); ++i) {
      const Product& p = products_[i];
      if (!p.has_dx) continue;
      const auto write_back = add ? kernels_.add_scaled : kernels_.store_scaled;
      for (std::int64_t c = 0; c < p.chunks; ++c) {
        const std::int64_t r = c * kChunkRows, steps = std::min(kChunkRows, p.quarter - r);
        panel_kernels_.input_gradient_panel(p.packed + r * inputs_ + column, inputs_, steps, panel);
        for (std::int64_t t = 0; t < tokens; t += block_rows_) {
          const std::int64_t count = std::min(block_rows_, tokens - t), token = first + t;
          panel_kernels_.ternary_products(panel, steps, p.row_codes + token * p.outputs + 4 * r,
                                          p.outputs, p.row_sums + c * rows_ + token, count, c > 0,
                                          acc + t * kPanelWidth);
          if (c + 1 < p.chunks) continue;
          write_back(acc + t * kPanelWidth, count, p.row_scales + token,
                     dx_ + token * inputs_ + column, inputs_);
        }
      }
      add = true;
    }
  }

  // dw of kDwOutputs outputs from `output`, and of a block of columns.
  void weight_gradient(const Product& p, std::int64_t output, std::int64_t block) const {
    alignas(64) std::int32_t acc[kMostBlockRows * kPanelWidth];
    const std::int64_t end = std::min(output + kDwOutputs, p.outputs);
    for (std::int64_t tile = 0; tile < tiles_; ++tile) {
      const std::int64_t steps = tile_count(tile_tokens(tile), 4);
      for (std::int64_t i = block * kDwPanels; i < std::min((block + 1) * kDwPanels, input_panels_);
           ++i) {
        for (std::int64_t n = output; n < end; n += block_rows_) {
          const std::int64_t count = std::min(block_rows_, end - n);
          const std::int64_t column = tile * p.outputs + n;
          panel_kernels_.signed_products(input_panel(tile, i), steps,
                                         p.column_codes + column * kGradientTile, kGradientTile,
                                         p.column_sums + column, count, false, acc);
          kernels_.add_scaled(acc, count, p.column_scales + column,
                              p.dw + n * inputs_ + i * kPanelWidth, inputs_);
        }
      }
    }
  }

  const PanelKernels& panel_kernels_;
  const GradientKernels& kernels_;
  std::int64_t block_rows_;   // between a product and its write-back
  const std::int8_t* codes_;  // [rows, K]
  const float* act_scale_;    // [rows]
  std::span<const BitLinearGradient> gradients_;
  float* dx_;  // [rows, K], or null
  std::int64_t rows_, inputs_, tiles_, input_panels_, column_blocks_;
  bool has_dx_ = false, has_dw_ = false;

  Product* products_ = nullptr;
  std::int8_t* panels_of_x_ = nullptr;  // [tiles, K / 64], panels of kGradientTile tokens
};

}  // namespace

bool integer_gradients(const ThreadTeam& team, const PanelKernels& panels,
                       const GradientKernels& kernels, Scratch& scratch, ConstTensorView codes,
                       ConstTensorView act_scale, std::span<const BitLinearGradient> gradients,
                       TensorView dx) {
  IntegerGradients task(panels, kernels, codes, act_scale, gradients, dx);
  task.run(team, scratch);
  return task.has_dx();
}

}  // namespace bitnet::cpu
