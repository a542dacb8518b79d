// SPDX-License-Identifier: MIT
// The plain twin of every panel kernel: what the tests compare the vector ones with, and what runs
// where there is no other.
#include "core/cpu/panel_kernels.h"

namespace bitnet::cpu {
namespace {

// acc[t][o] = [acc[t][o] +] sum over the panel's elements of (panel - offset) * row.
template <typename Value>
void products(const Value* panel, int offset, std::int64_t steps, const std::int8_t* rows,
              std::int64_t row_stride, std::int64_t row_count, bool accumulate, std::int32_t* acc) {
  for (std::int64_t t = 0; t < row_count; ++t) {
    const std::int8_t* row = rows + t * row_stride;
    for (std::int64_t o = 0; o < kPanelWidth; ++o) {
      std::int32_t& out = acc[t * kPanelWidth + o];
      auto sum = static_cast<std::uint32_t>(accumulate ? out : 0);  // unsigned, because it may wrap
      for (std::int64_t s = 0; s < steps; ++s) {
        const Value* values = panel + s * kPanelStep + o * 4;
        for (int b = 0; b < 4; ++b) {
          sum += static_cast<std::uint32_t>((values[b] - offset) * row[4 * s + b]);
        }
      }
      out = static_cast<std::int32_t>(sum);
    }
  }
}

void ternary_products(const std::uint8_t* panel, std::int64_t steps, const std::int8_t* rows,
                      std::int64_t row_stride, const std::int32_t*, std::int64_t row_count,
                      bool accumulate, std::int32_t* acc) {
  products(panel, 1, steps, rows, row_stride, row_count, accumulate, acc);
}

void signed_products(const std::int8_t* panel, std::int64_t steps, const std::int8_t* rows,
                     std::int64_t row_stride, const std::int32_t*, std::int64_t row_count,
                     bool accumulate, std::int32_t* acc) {
  products(panel, 0, steps, rows, row_stride, row_count, accumulate, acc);
}

void row_sums(const std::int8_t* rows, std::int64_t row_stride, std::int64_t columns,
              std::int64_t row_count, std::int32_t* sums) {
  for (std::int64_t t = 0; t < row_count; ++t) {
    sums[t] = 0;
    for (std::int64_t c = 0; c < columns; ++c) sums[t] += rows[t * row_stride + c];
  }
}

std::uint8_t code(std::uint8_t byte, std::int64_t i) {
  return static_cast<std::uint8_t>((byte >> (2 * i)) & 3);
}

void forward_panel(const std::uint8_t* packed, std::int64_t row_stride, std::int64_t packed_rows,
                   std::int64_t columns, std::uint8_t* panel) {
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t j = 0; j < 16; ++j) {
      const std::int64_t o = 16 * i + j;
      for (std::int64_t c = 0; c < columns; ++c) {
        panel[c / 4 * kPanelStep + o * 4 + c % 4] =
            j < packed_rows ? code(packed[j * row_stride + c], i) : std::uint8_t{1};
      }
    }
  }
}

void input_gradient_panel(const std::uint8_t* packed, std::int64_t row_stride,
                          std::int64_t packed_rows, std::uint8_t* panel) {
  for (std::int64_t r = 0; r < packed_rows; ++r) {
    for (std::int64_t c = 0; c < kPanelWidth; ++c) {
      for (std::int64_t i = 0; i < 4; ++i) {
        panel[r * kPanelStep + c * 4 + i] = code(packed[r * row_stride + c], i);
      }
    }
  }
}

void weight_gradient_panel(const std::int8_t* x, std::int64_t row_stride, std::int64_t tokens,
                           std::int8_t* panel) {
  for (std::int64_t s = 0; 4 * s < tokens; ++s) {
    for (std::int64_t c = 0; c < kPanelWidth; ++c) {
      for (std::int64_t b = 0; b < 4; ++b) {
        const std::int64_t t = 4 * s + b;
        panel[s * kPanelStep + c * 4 + b] = t < tokens ? x[t * row_stride + c] : std::int8_t{0};
      }
    }
  }
}

void store_products(const std::int32_t* acc, std::int64_t tokens, std::int64_t packed_rows,
                    const float* act_scale, float weight_scale, const float* residual, float* y,
                    std::int64_t y_stride, std::int64_t quarter) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float scale = act_scale[t] * weight_scale;
    for (std::int64_t i = 0; i < 4; ++i) {
      for (std::int64_t j = 0; j < packed_rows; ++j) {
        const std::int64_t place = t * y_stride + i * quarter + j;
        const float product = scale * static_cast<float>(acc[t * kPanelWidth + 16 * i + j]);
        y[place] = residual != nullptr ? residual[place] + product : product;
      }
    }
  }
}

}  // namespace

const PanelKernels kPanelScalar = {
    .name = "scalar",
    .block_rows = 6,
    .begin_products = nullptr,
    .end_products = nullptr,
    .ternary_products = ternary_products,
    .signed_products = signed_products,
    .row_sums = row_sums,
    .forward_panel = forward_panel,
    .input_gradient_panel = input_gradient_panel,
    .weight_gradient_panel = weight_gradient_panel,
    .store_products = store_products,
};

}  // namespace bitnet::cpu
