// SPDX-License-Identifier: MIT
// The proof that written files hold the model that they were made from: read again with our own
// readers, codes and scales compared exactly, floats after the format's rounding, then logits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/convert/model_views.h"
#include "core/eval/logit_comparison.h"

namespace bitnet {

struct VerifyReport {
  std::int64_t tensors = 0;  // compared; all equal to what the format can hold of the source
  std::int64_t codes = 0;    // of these, 2-bit codes
  // Floats that the format rounded, and by how much at most, relative to their value.
  std::int64_t rounded = 0;
  double largest_rounding = 0;
  LogitComparison logits;   // of the source and of what was written
  std::int64_t tokens = 0;  // of the sample
  // Of the sample under both, per byte of a text or, where the model's tokenizer cannot encode it,
  // per token of a pseudo-random sequence.
  bool per_byte = false;
  double source_bits = 0, written_bits = 0;
  // What the format does not say about the tokenizer as the source does; one line each.
  std::vector<std::string> token_differences;
};

// `expected` is `source` in the form and with the roundings of the format (or `source` itself);
// `written` reads the files. Throws Error naming the first tensor, token or logit that is not what
// `expected` has: logits must be equal bit for bit, so only the roundings of the format remain
// between source and written. One model at a time is in memory.
VerifyReport verify_conversion(Backend& backend, const SharedReader& source,
                               const SharedReader& expected, const SharedReader& written);

// "verified: …", one line or two for people.
std::string describe(const VerifyReport& report);

}  // namespace bitnet
