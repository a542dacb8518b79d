// SPDX-License-Identifier: MIT
// Any bytes as a GGUF file: refused with an Error; or its metadata and tensors are inside the file,
// and if it holds a model that we compute, all of it can be read, or is refused, tensor by tensor.
#include <vector>

#include "core/base/error.h"
#include "core/convert/model_reader.h"
#include "core/gguf/gguf_file.h"
#include "tests/fuzz/input_file.h"

namespace {

using namespace bitnet;

void read_container(const GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    describe(value);
    try {
      if (value.type == GgufValueType::array && value.element == GgufValueType::string) {
        file.texts(key);
      } else if (value.type == GgufValueType::array && value.element == GgufValueType::f32) {
        file.numbers(key);
      } else if (value.type == GgufValueType::array) {
        file.integers(key);
      } else {
        file.integer(key, 0, 1);
      }
    } catch (const FormatError&) {
    }
  }
  for (const GgufFile::Tensor& tensor : file.tensors()) {
    if (file.find(tensor.name) != &tensor ||
        tensor.offset + tensor.bytes.size() > file.file_bytes())
      __builtin_trap();
  }
}

void read_model(const ModelReader& reader) {
  for (const ExpectedTensor& tensor : expected_tensors(reader.config(), reader.form())) {
    const std::int64_t elements = tensor.elements();
    try {
      if (tensor.packed) {
        std::vector<std::uint8_t> packed(static_cast<std::size_t>(elements));
        reader.read_packed(tensor.name, packed);
        if (find_invalid_code(packed) >= 0) __builtin_trap();
      } else {
        std::vector<float> values(static_cast<std::size_t>(elements));
        reader.read_floats(tensor.name, values);
        for (const float value : values)
          if (tensor.scale && !(value > 0)) __builtin_trap();
      }
    } catch (const FormatError&) {
    }
  }
  reader.tokenizer()->encode("a text");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static bitnet::fuzz::InputFile input;
  try {
    read_container(bitnet::GgufFile({data, size}, "fuzz"));
    read_model(*bitnet::open_gguf(input.fill({data, size})));
  } catch (const bitnet::Error&) {
  }
  return 0;
}
