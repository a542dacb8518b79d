// SPDX-License-Identifier: MIT
#include "core/convert/gguf_projection.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/convert/gguf_names.h"
#include "core/gguf/gguf_blocks.h"
#include "core/quant/ternary.h"

namespace bitnet {
namespace {

using Tensor = GgufFile::Tensor;

std::size_t size_of(std::int64_t n) { return static_cast<std::size_t>(n); }

// Bytes of one row: without the scale that ends an i2_s tensor.
std::span<const std::uint8_t> bytes_of_row(const Tensor& tensor, std::int64_t row) {
  const GgufTypeInfo& type = *find_gguf_type(tensor.type);
  const std::size_t bytes = size_of(tensor.columns() / type.block * type.block_bytes);
  return tensor.bytes.subspan(size_of(row) * bytes, bytes);
}

}  // namespace

GgufProjection::GgufProjection(const GgufFile& file, const Tensor& tensor, float factor,
                               std::int64_t permuted_head)
    : file_(&file), tensor_(&tensor), factor_(factor), permuted_head_(permuted_head) {
  if (!holds_floats()) scan_scales();
}

bool GgufProjection::holds_floats() const {
  return elements_of(tensor_->type) == GgufElements::floats;
}

std::span<const std::uint8_t> GgufProjection::row_bytes(std::int64_t file_row) const {
  return bytes_of_row(*tensor_, file_row);
}

std::int64_t GgufProjection::file_row(std::int64_t our_row) const {
  return permuted_head_ == 0 ? our_row : gguf_permuted_row(our_row, permuted_head_);
}

std::int64_t GgufProjection::block() const {
  if (tensor_->type == GgufType::i2_s) return columns();
  return find_gguf_type(tensor_->type)->block;
}

float GgufProjection::stored_scale(std::int64_t file_row, std::int64_t block) const {
  const float scale = factor_ * (tensor_->type == GgufType::i2_s
                                     ? i2s_scale(tensor_->bytes)
                                     : block_scale(tensor_->type, row_bytes(file_row), block));
  if (!std::isfinite(scale))
    file_->refuse(*tensor_,
                  fmt::format("scale {} in row {}, expected a finite number", scale, file_row));
  return scale;
}

void GgufProjection::scan_scales() {
  single_ = true;
  const std::int64_t blocks = columns() / block();
  const std::int64_t scanned_rows = tensor_->type == GgufType::i2_s ? 1 : rows();
  for (std::int64_t r = 0; r < scanned_rows && single_; ++r) {
    for (std::int64_t b = 0; b < blocks && single_; ++b) {
      const float scale = std::fabs(stored_scale(r, b));
      if (scale == 0) continue;
      single_ = single_scale_ == 0 || scale == single_scale_;
      single_scale_ = scale;
    }
  }
}

float GgufProjection::common_scale(std::int64_t file_row, std::int64_t begin,
                                   std::int64_t end) const {
  float common = 0;
  for (std::int64_t b = begin / block(); b * block() < end; ++b) {
    const float scale = std::fabs(stored_scale(file_row, b));
    if (scale == 0) continue;
    if (common != 0 && scale != common) return NAN;
    common = scale;
  }
  return common;
}

bool GgufProjection::agrees_with(std::int64_t group) const {
  if (group == 0 || single_) return single_;
  if (group <= block() && block() % group == 0) return true;
  for (std::int64_t r = 0; r < rows(); ++r) {
    for (std::int64_t begin = 0; begin < columns(); begin += group) {
      if (std::isnan(common_scale(r, begin, begin + group))) return false;
    }
  }
  return true;
}

void GgufProjection::read_scales(std::int64_t group, std::span<float> to) const {
  const float if_zero = single_ && single_scale_ != 0 ? single_scale_ : kScaleEps;
  if (group == 0 || single_) {
    BITNET_CHECK(single_, "tensor '{}' has more than one scale", tensor_->name);
    std::fill(to.begin(), to.end(), if_zero);
    return;
  }
  const std::int64_t groups = columns() / group;
  BITNET_CHECK(static_cast<std::int64_t>(to.size()) == rows() * groups, "{} scales for tensor '{}'",
               to.size(), tensor_->name);
  for (std::int64_t r = 0; r < rows(); ++r) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const float scale = common_scale(file_row(r), g * group, (g + 1) * group);
      to[size_of(r * groups + g)] = scale == 0 ? if_zero : scale;
    }
  }
}

void GgufProjection::read_packed(std::span<std::uint8_t> to) const {
  const std::int64_t quarter = rows() / 4;
  BITNET_CHECK(rows() % 4 == 0 && static_cast<std::int64_t>(to.size()) == quarter * columns(),
               "{} bytes for the codes of tensor '{}'", to.size(), tensor_->name);
  std::fill(to.begin(), to.end(), std::uint8_t{0});
  std::vector<std::int8_t> codes(size_of(columns()));
  for (std::int64_t r = 0; r < rows(); ++r) {
    read_codes_of_row(file_row(r), codes);
    const auto shift = static_cast<int>(2 * (r / quarter));
    std::uint8_t* const bytes = to.data() + r % quarter * columns();
    for (std::size_t c = 0; c < codes.size(); ++c)
      bytes[c] = static_cast<std::uint8_t>(bytes[c] | (codes[c] + 1) << shift);
  }
}

void GgufProjection::read_floats(std::int64_t first, std::span<float> to) const {
  const auto count = static_cast<std::int64_t>(to.size());
  BITNET_CHECK(holds_floats() && first % columns() == 0 && count % columns() == 0 &&
                   first + count <= rows() * columns(),
               "elements [{}, {}) of tensor '{}'", first, first + count, tensor_->name);
  for (std::int64_t i = 0; i < count; i += columns()) {
    decode_gguf_floats(tensor_->type, row_bytes(file_row((first + i) / columns())),
                       to.subspan(size_of(i), size_of(columns())));
  }
  if (factor_ == 1.0f) return;
  for (float& value : to) value *= factor_;
}

std::optional<int> GgufProjection::only_code() const {
  if (holds_floats()) return gguf_floats_are_zero(*tensor_) ? std::optional<int>(0) : std::nullopt;
  std::vector<std::int8_t> codes(size_of(columns()));
  std::int8_t first = 0;
  for (std::int64_t r = 0; r < rows(); ++r) {
    read_codes_of_row(r, codes);
    if (r == 0) first = codes[0];
    if (std::any_of(codes.begin(), codes.end(), [&](std::int8_t c) { return c != first; }))
      return std::nullopt;
  }
  return first;
}

void GgufProjection::read_codes_of_row(std::int64_t file_row, std::span<std::int8_t> to) const {
  const std::int64_t invalid = decode_codes(tensor_->type, row_bytes(file_row), to, {});
  if (invalid >= 0) {
    const auto byte =
        static_cast<std::uint64_t>(row_bytes(file_row).data() - tensor_->bytes.data());
    file_->refuse(*tensor_,
                  fmt::format("the 2-bit value 3 at row {}, column {}; expected 0, 1 or 2",
                              file_row, invalid),
                  byte);
  }
  for (std::int64_t b = 0; b * block() < columns(); ++b) {
    const float scale = stored_scale(file_row, b);
    if (scale > 0) continue;
    for (std::int8_t& code : to.subspan(size_of(b * block()), size_of(block())))
      code = static_cast<std::int8_t>(scale == 0 ? 0 : -code);
  }
}

bool gguf_floats_are_zero(const Tensor& tensor) {
  std::vector<float> row(size_of(tensor.columns()));
  for (std::int64_t r = 0; r < tensor.rows(); ++r) {
    decode_gguf_floats(tensor.type, bytes_of_row(tensor, r), row);
    if (std::any_of(row.begin(), row.end(), [](float value) { return value != 0; })) return false;
  }
  return true;
}

}  // namespace bitnet
