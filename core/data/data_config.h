// SPDX-License-Identifier: MIT
// The "data" section of a config: which file and tokenizer, how it is cut into train, valid and
// test, and in which order it is read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/field_visitor.h"

namespace bitnet {

struct DataConfig {
  std::string path;  // a text, or a token shard (core/data/token_shard.h)
  // Train, valid and test, in the order of the file. Fractions when each is at most 1 and so is
  // their sum; else counts: bytes of a text, tokens of a shard.
  std::vector<double> split = {0.9, 0.05, 0.05};
  std::string order = "random";  // random | sequential; see batch_loader.h
  // The folder of the shard's tokenizer, or of the one that encodes the text. Empty: that of the
  // model that the run begins with (train.init), else bytes.
  std::string tokenizer = {};

  bool operator==(const DataConfig&) const = default;

  void visit_fields(FieldVisitor& visitor);

  // Throws UsageError with the value that breaks a rule.
  void validate() const;
};

// Where train, valid and test end, as DataConfig::split says; what is left over belongs to none.
// Throws UsageError for a malformed split or counts larger than `size`. `unit` is used in messages.
std::array<std::size_t, 3> split_ends(const std::vector<double>& split, std::size_t size,
                                      const char* unit = "bytes");

struct DataSplits {
  std::span<const std::uint8_t> train, valid, test;
};

// Cuts `bytes` at split_ends().
DataSplits split_bytes(std::span<const std::uint8_t> bytes, const std::vector<double>& split);

}  // namespace bitnet
