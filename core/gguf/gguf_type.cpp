// SPDX-License-Identifier: MIT
#include "core/gguf/gguf_type.h"

#include <fmt/format.h>

#include "core/base/error.h"

namespace bitnet {
namespace {

// Types that we do not decode are here for their sizes: a container that holds them can still be
// checked and listed.
constexpr GgufTypeInfo kTypes[] = {
    {GgufType::f32, "f32", 1, 4},        {GgufType::f16, "f16", 1, 2},
    {GgufType{2}, "q4_0", 32, 18},       {GgufType{3}, "q4_1", 32, 20},
    {GgufType{6}, "q5_0", 32, 22},       {GgufType{7}, "q5_1", 32, 24},
    {GgufType::q8_0, "q8_0", 32, 34},    {GgufType{9}, "q8_1", 32, 36},
    {GgufType{10}, "q2_k", 256, 84},     {GgufType{11}, "q3_k", 256, 110},
    {GgufType{12}, "q4_k", 256, 144},    {GgufType{13}, "q5_k", 256, 176},
    {GgufType{14}, "q6_k", 256, 210},    {GgufType{15}, "q8_k", 256, 292},
    {GgufType{16}, "iq2_xxs", 256, 66},  {GgufType{17}, "iq2_xs", 256, 74},
    {GgufType{18}, "iq3_xxs", 256, 98},  {GgufType{19}, "iq1_s", 256, 50},
    {GgufType{20}, "iq4_nl", 32, 18},    {GgufType{21}, "iq3_s", 256, 110},
    {GgufType{22}, "iq2_s", 256, 82},    {GgufType{23}, "iq4_xs", 256, 136},
    {GgufType{24}, "i8", 1, 1},          {GgufType{25}, "i16", 1, 2},
    {GgufType{26}, "i32", 1, 4},         {GgufType{27}, "i64", 1, 8},
    {GgufType{28}, "f64", 1, 8},         {GgufType{29}, "iq1_m", 256, 56},
    {GgufType::bf16, "bf16", 1, 2},      {GgufType::tq1_0, "tq1_0", 256, 54},
    {GgufType::tq2_0, "tq2_0", 256, 66}, {GgufType::i2_s, "i2_s", 128, 32},
    {GgufType{39}, "mxfp4", 32, 17},     {GgufType::q1_0, "q1_0", 128, 18},
    {GgufType::q2_0, "q2_0", 64, 18},
};

}  // namespace

const GgufTypeInfo* find_gguf_type(GgufType type) {
  for (const GgufTypeInfo& info : kTypes) {
    if (info.type == type) return &info;
  }
  return nullptr;
}

std::optional<GgufType> parse_gguf_type(std::string_view name) {
  for (const GgufTypeInfo& info : kTypes) {
    if (info.name == name) return info.type;
  }
  return std::nullopt;
}

std::string to_string(GgufType type) {
  const GgufTypeInfo* info = find_gguf_type(type);
  return info != nullptr ? info->name : fmt::format("type {}", static_cast<std::uint32_t>(type));
}

GgufElements elements_of(GgufType type) {
  switch (type) {
    case GgufType::f32:
    case GgufType::f16:
    case GgufType::bf16:
    case GgufType::q8_0:
      return GgufElements::floats;
    case GgufType::tq1_0:
    case GgufType::tq2_0:
    case GgufType::i2_s:
    case GgufType::q2_0:
      return GgufElements::trits;
    case GgufType::q1_0:
      return GgufElements::signs;
  }
  return GgufElements::foreign;
}

bool gguf_type_holds(GgufType type, std::int64_t columns) {
  const GgufTypeInfo* info = find_gguf_type(type);
  return info != nullptr && columns % info->block == 0;
}

std::string gguf_types_that_hold(std::int64_t columns) {
  std::string text;
  for (const GgufType type : {GgufType::q2_0, GgufType::i2_s, GgufType::tq2_0, GgufType::tq1_0}) {
    if (!gguf_type_holds(type, columns)) continue;
    text += fmt::format("{}{} (blocks of {})", text.empty() ? "" : ", ", to_string(type),
                        find_gguf_type(type)->block);
  }
  return text;
}

std::uint64_t gguf_tensor_bytes(GgufType type, std::int64_t columns, std::int64_t rows) {
  const GgufTypeInfo* info = find_gguf_type(type);
  BITNET_CHECK(info != nullptr && columns % info->block == 0, "{} cannot hold rows of {} columns",
               to_string(type), columns);
  const std::int64_t blocks = columns / info->block * rows;
  const auto bytes =
      static_cast<std::uint64_t>(blocks) * static_cast<std::uint64_t>(info->block_bytes);
  return type == GgufType::i2_s ? bytes + kI2sTailBytes : bytes;
}

}  // namespace bitnet
