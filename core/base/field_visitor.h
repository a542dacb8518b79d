// SPDX-License-Identifier: MIT
// Each config struct lists its fields once, in visit_fields(); reading, writing, printing,
// comparing and --set all walk that list (core/base/config_io.h).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// `key` is the JSON key, `about` one line for humans. Bounds are inclusive.
class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void field(const char* key, bool& value, const char* about) = 0;
  virtual void field(const char* key, std::int64_t& value, std::int64_t min, std::int64_t max,
                     const char* about) = 0;
  virtual void field(const char* key, double& value, double min, double max, const char* about) = 0;
  // Free text; or, where `choices` is not empty, one of the choices.
  virtual void field(const char* key, std::string& value, const std::vector<std::string>& choices,
                     const char* about) = 0;
  virtual void field(const char* key, std::vector<double>& value, const char* about) = 0;
};

}  // namespace bitnet
