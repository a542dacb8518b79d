// SPDX-License-Identifier: MIT
// The "data" section of a config: which file, how it is cut into train, valid and test, and in
// which order it is read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/field_visitor.h"

namespace bitnet {

struct DataConfig {
  std::string path;
  // Train, valid and test, in the order of the file. Fractions when each is at most 1 and so is
  // their sum; else byte counts.
  std::vector<double> split = {0.9, 0.05, 0.05};
  std::string order = "random";  // random | sequential; see batch_loader.h

  bool operator==(const DataConfig&) const = default;

  void visit_fields(FieldVisitor& visitor);

  // Throws UsageError with the value that breaks a rule.
  void validate() const;
};

struct DataSplits {
  std::span<const std::uint8_t> train, valid, test;
};

// Cuts `bytes` as DataConfig::split says; what is left over belongs to none. Throws UsageError for
// a malformed split or byte counts larger than the data.
DataSplits split_bytes(std::span<const std::uint8_t> bytes, const std::vector<double>& split);

}  // namespace bitnet
