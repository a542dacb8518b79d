// SPDX-License-Identifier: MIT
#include "app/conversion_output.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace bitnet {
namespace {

using nlohmann::ordered_json;

ordered_json verification_json(const VerifyReport& r) {
  return {{"tensors", r.tensors},
          {"codes", r.codes},
          {"rounded_floats", r.rounded},
          {"largest_relative_rounding", r.largest_rounding},
          {"logits", r.logits.compared},
          {"different_logits", r.logits.different},
          {"largest_logit_difference", r.logits.largest_difference},
          {"sample_tokens", r.tokens},
          {r.per_byte ? "bits_per_byte" : "bits_per_token", r.written_bits},
          {r.per_byte ? "source_bits_per_byte" : "source_bits_per_token", r.source_bits},
          {"token_differences", r.token_differences}};
}

}  // namespace

void print_conversion(const ConversionOutput& output, bool json) {
  for (const std::string& warning : output.report.warnings)
    write_stderr_line("bitnet: warning: " + warning);
  const ConversionReport& r = output.report;
  if (json) {
    const ordered_json object = {
        {"source", output.source.string()},
        {"source_format", output.source_format},
        {"target", output.target.string()},
        {"target_format", output.target_format},
        {"bytes", r.bytes},
        {"tensors", r.tensors},
        {"weights", r.weights},
        {"warnings", r.warnings},
        {"verification",
         output.verification ? verification_json(*output.verification) : ordered_json()}};
    return write_json_line(object);
  }
  write_stdout(fmt::format(
      "{} ({}) -> {} ({})\n{} weights, {} tensors, {} bytes\n{}", output.source.string(),
      output.source_format, output.target.string(), output.target_format, r.weights, r.tensors,
      r.bytes, output.verification ? describe(*output.verification) : "not verified\n"));
}

ConversionProgress show_progress(ProgressLine& line) {
  return [&line](std::size_t done, std::size_t tensors) {
    line.show(fmt::format("{} of {} tensors", done, tensors));
  };
}

}  // namespace bitnet
