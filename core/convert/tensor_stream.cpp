// SPDX-License-Identifier: MIT
#include "core/convert/tensor_stream.h"

#include <algorithm>

#include "core/base/half.h"
#include "core/checkpoint/tensor_report.h"

namespace bitnet {
TensorStream::TensorStream(const ModelReader& reader, FloatDtype scale_dtype,
                           ConversionProgress progress)
    : reader_(reader), progress_(std::move(progress)), warnings_(reader.warnings()) {
  for (ExpectedTensor& tensor : expected_tensors(reader.config(), reader.form())) {
    const FloatDtype dtype = tensor.packed  ? FloatDtype::f32
                             : tensor.scale ? scale_dtype
                                            : reader.float_dtype(tensor.name);
    tensors_.push_back({.name = tensor.name,
                        .dtype = tensor.packed               ? "U8"
                                 : dtype == FloatDtype::bf16 ? "BF16"
                                                             : "F32",
                        .shape = tensor.shape,
                        .fetch = [this, tensor, dtype] { return read(tensor, dtype); }});
  }
}

const void* TensorStream::read(const ExpectedTensor& tensor, FloatDtype dtype) {
  const std::size_t elements = static_cast<std::size_t>(tensor.elements());
  TensorReport report{tensor.name, "", tensor.shape, elements, {}, {}, {}};
  if (tensor.packed) {
    bytes_.resize(elements);
    reader_.read_packed(tensor.name, bytes_);
    report.codes = count_codes(bytes_);
  } else {
    floats_.resize(elements);
    reader_.read_floats(tensor.name, floats_);
    report.values = float_statistics(floats_);
  }
  for (std::string& warning : value_warnings(report)) {  // a reader may have said it already
    if (std::find(warnings_.begin(), warnings_.end(), warning) == warnings_.end())
      warnings_.push_back(std::move(warning));
  }
  if (progress_) progress_(++done_, tensors_.size());
  if (tensor.packed) return bytes_.data();
  if (dtype == FloatDtype::f32) return floats_.data();
  halves_.resize(elements);
  std::transform(floats_.begin(), floats_.end(), halves_.begin(), to_bf16);
  return halves_.data();
}

ConversionReport TensorStream::report() const {
  ConversionReport report;
  report.tensors = std::ssize(tensors_);
  for (const TensorSpec& spec : list_tensors(reader_.config()))
    report.weights += spec.shape.elements();
  report.warnings = warnings_;
  return report;
}

FloatDtype common_float_dtype(const ModelReader& reader) {
  for (const ExpectedTensor& tensor : expected_tensors(reader.config(), reader.form())) {
    if (tensor.packed || tensor.scale) continue;
    if (reader.float_dtype(tensor.name) == FloatDtype::f32) return FloatDtype::f32;
  }
  return FloatDtype::bf16;
}

bool scales_are_bf16(const ModelReader& reader) {
  std::vector<float> scales;
  for (const ExpectedTensor& tensor : expected_tensors(reader.config(), reader.form())) {
    if (!tensor.scale) continue;
    scales.resize(static_cast<std::size_t>(tensor.elements()));
    reader.read_floats(tensor.name, scales);
    for (const float scale : scales)
      if (from_bf16(to_bf16(scale)) != scale) return false;
  }
  return true;
}

}  // namespace bitnet
