// SPDX-License-Identifier: MIT
// The tensors of a model on their way into safetensors files, one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/safetensors.h"
#include "core/checkpoint/model_config_json.h"
#include "core/convert/model_reader.h"

namespace bitnet {

// How far a conversion has come.
using ConversionProgress = std::function<void(std::size_t tensors_done, std::size_t tensors)>;

// What every conversion tells.
struct ConversionReport {
  std::uint64_t bytes = 0;            // of the weights' files
  std::int64_t tensors = 0;           // in them
  std::int64_t weights = 0;           // of the model
  std::vector<std::string> warnings;  // of the reader, and tensors that look wrong
};

// Each tensor is read when its turn to be written comes, so memory is bounded by the largest.
// `reader` and the stream must outlive the writing.
class TensorStream {
 public:
  // Floats keep their dtype; scales are written as `scale_dtype`, which must hold them exactly.
  TensorStream(const ModelReader& reader, FloatDtype scale_dtype, ConversionProgress progress);
  TensorStream(const TensorStream&) = delete;  // the tensors point here

  const std::vector<TensorToWrite>& tensors() const { return tensors_; }
  // Without bytes. Complete when all tensors are written.
  ConversionReport report() const;

 private:
  const void* read(const ExpectedTensor& tensor, FloatDtype dtype);

  const ModelReader& reader_;
  ConversionProgress progress_;
  std::vector<TensorToWrite> tensors_;
  std::vector<std::string> warnings_;
  std::size_t done_ = 0;
  std::vector<float> floats_;
  std::vector<std::uint16_t> halves_;
  std::vector<std::uint8_t> bytes_;
};

// bf16 where all floats of the model are stored in it, else f32.
FloatDtype common_float_dtype(const ModelReader& reader);
// Whether bf16 holds every weight scale exactly.
bool scales_are_bf16(const ModelReader& reader);

}  // namespace bitnet
