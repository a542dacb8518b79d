// SPDX-License-Identifier: MIT
// A projection's tensor in a GGUF file, read as our codes and scales or as floats.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/gguf/gguf_file.h"

namespace bitnet {

class GgufProjection {
 public:
  // factor multiplies every scale. permuted_head: 0, or the width of the heads whose rows the file
  // has in another order (gguf_permuted_row()). Throws FormatError for scales that are not finite.
  GgufProjection(const GgufFile& file, const GgufFile::Tensor& tensor, float factor,
                 std::int64_t permuted_head);

  const GgufFile::Tensor& tensor() const { return *tensor_; }

  bool holds_floats() const;
  bool holds_bf16() const { return tensor_->type == GgufType::bf16 && factor_ == 1.0f; }

  // Of codes: whether one scale is enough (blocks of zeros fit any), or one for each `group` columns.
  bool has_single_scale() const { return single_; }
  bool agrees_with(std::int64_t group) const;

  // [1], or [rows, columns / group]. Positive; where all codes are zeros and the file has none,
  // kScaleEps.
  void read_scales(std::int64_t group, std::span<float> to) const;
  // [rows / 4, columns]. Blocks of scale 0 are zeros, those of negative scale change their signs.
  // Throws FormatError for the 2-bit value 3.
  void read_packed(std::span<std::uint8_t> to) const;
  // Elements [first, first + to.size()) of [rows, columns], of a tensor of floats; whole rows.
  void read_floats(std::int64_t first, std::span<float> to) const;

  // The code that all weights share, if they do; of floats only 0 counts.
  std::optional<int> only_code() const;

 private:
  std::int64_t rows() const { return tensor_->rows(); }
  std::int64_t columns() const { return tensor_->columns(); }
  std::span<const std::uint8_t> row_bytes(std::int64_t file_row) const;
  std::int64_t file_row(std::int64_t our_row) const;
  // Columns that share a stored scale.
  std::int64_t block() const;
  // The stored scale of a block of a row of the file, times the factor; with its sign.
  float stored_scale(std::int64_t file_row, std::int64_t block) const;
  void scan_scales();
  // The one magnitude of the scales of columns [begin, end), 0 where all of these are 0, or NaN where
  // they differ.
  float common_scale(std::int64_t file_row, std::int64_t begin, std::int64_t end) const;
  void read_codes_of_row(std::int64_t file_row, std::span<std::int8_t> to) const;

  const GgufFile* file_;
  const GgufFile::Tensor* tensor_;
  float factor_;
  std::int64_t permuted_head_;
  bool single_ = false;
  float single_scale_ = 0;  // its magnitude; 0: all zeros
};

// Whether a tensor of floats is all zeros.
bool gguf_floats_are_zero(const GgufFile::Tensor& tensor);

}  // namespace bitnet
