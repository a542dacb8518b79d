// SPDX-License-Identifier: MIT
#include "core/convert/verify.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <optional>
#include <set>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/quant/ternary.h"

namespace bitnet {
namespace {

constexpr std::string_view kSampleText =
    "The river rises in the hills to the north, where it rains on two days out of three. For 120 "
    "miles it runs through fields and small towns; then it meets the sea. In 1848 a bridge of five "
    "arches was built here, of the same grey stone as the church. It's still in use, though carts "
    "have given way to lorries, and \"Slow!\" is painted on the road at either end.\n\nNobody "
    "knows "
    "who drew the first map of it. The oldest copy that we have (about 1620) shows mills, a ferry "
    "and, far out, a whale: proof enough that the man had been told of the place rather than "
    "shown it. Later maps agree with each other to within a few yards, and so do we.\n";

struct Sample {
  std::vector<std::int32_t> tokens;  // two sequences, one after the other
  std::vector<std::int64_t> bytes;   // of each token; empty: not of a text
};

Sample make_sample(const ModelConfig& config, const Tokenizer& tokenizer) {
  Sample sample;
  sample.tokens = tokenizer.encode(kSampleText);
  const std::int64_t length =
      std::min({kSampleTokens, config.max_position_embeddings, std::ssize(sample.tokens) / 2});
  const bool fits = std::ranges::all_of(
      sample.tokens, [&](std::int32_t token) { return token < config.vocab_size; });
  if (!fits || length < 2) return {random_sample(config), {}};
  sample.tokens.resize(static_cast<std::size_t>(2 * length));
  for (const std::int32_t token : sample.tokens)
    sample.bytes.push_back(std::ssize(tokenizer.token_bytes(token)));
  return sample;
}

// -log2 p of the tokens that have one before them, per byte of theirs (or per token).
double mean_bits(const Sample& sample, std::span<const float> logits, std::int64_t vocab) {
  const auto length = sample.tokens.size() / 2;
  double nats = 0, units = 0;
  for (std::size_t i = 0; i < sample.tokens.size(); ++i) {
    if (i % length == length - 1) continue;  // the last of a sequence predicts nothing here
    const auto row =
        logits.subspan(i * static_cast<std::size_t>(vocab), static_cast<std::size_t>(vocab));
    const double largest = *std::ranges::max_element(row);
    double sum = 0;
    for (const float logit : row) sum += std::exp(logit - largest);
    nats += std::log(sum) + largest - row[static_cast<std::size_t>(sample.tokens[i + 1])];
    units += sample.bytes.empty() ? 1 : static_cast<double>(sample.bytes[i + 1]);
  }
  return nats / std::numbers::ln2 / std::max(units, 1.0);
}

std::vector<float> logits_of(Backend& backend, const ModelReader& reader, const Sample& sample) {
  return sample_logits(*load_model(backend, reader), sample.tokens);
}

bool same_value(float a, float b) {
  return a == b || std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

std::vector<float> floats_of(const ModelReader& reader, const ExpectedTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  reader.read_floats(tensor.name, values);
  return values;
}

[[noreturn]] void refuse(const ModelReader& written, const std::string& what) {
  throw Error(fmt::format("the written model is not the one that it was made from: {} ({})", what,
                          written.description()));
}

void compare_codes(const ModelReader& expected, const ModelReader& written,
                   const ExpectedTensor& tensor, VerifyReport& report) {
  std::vector<std::uint8_t> a(static_cast<std::size_t>(tensor.elements())), b(a.size());
  expected.read_packed(tensor.name, a);
  written.read_packed(tensor.name, b);
  if (const std::int64_t flips = count_flips(a, b); flips > 0)
    refuse(written, fmt::format("{} codes of tensor '{}' differ", flips, tensor.name));
  report.codes += 4 * std::ssize(a);
}

// Whether these are the scales of codes that are all 0. A float file cannot tell such scales.
bool scales_nothing(const ModelReader& reader, const ExpectedTensor& scale) {
  const std::string weight = scale.name.substr(0, scale.name.rfind("_scale"));
  for (const ExpectedTensor& tensor : expected_tensors(reader.config(), reader.form())) {
    if (tensor.name != weight || !tensor.packed) continue;
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(tensor.elements()));
    reader.read_packed(tensor.name, packed);
    const CodeCounts counts = count_codes(packed);
    return counts.zero == counts.total();
  }
  return false;
}

void compare_floats(const ModelReader& expected, const ModelReader& written,
                    const ExpectedTensor& tensor) {
  const std::vector<float> a = floats_of(expected, tensor), b = floats_of(written, tensor);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (same_value(a[i], b[i])) continue;
    if (tensor.scale && scales_nothing(expected, tensor)) return;
    refuse(written, fmt::format("element {} of tensor '{}' is {:.9g}, expected {:.9g}", i,
                                tensor.name, b[i], a[i]));
  }
}

// A float file that holds a ternary model is read as codes and scales, whatever it was written from.
SharedReader in_form_of(const ModelReader& expected, const SharedReader& written) {
  const bool same = expected.form() == written->form() &&
                    expected.config().quantized() == written->config().quantized();
  if (same) return written;
  if (!expected.config().quantized() && written->config().quantized() &&
      !written->config().quantized_activations())
    return dense_view(written);
  refuse(*written, fmt::format("its projections are {}, expected {}", written->config().linear,
                               expected.config().linear));
}

void compare_tensors(const ModelReader& expected, const SharedReader& written,
                     VerifyReport& report) {
  const ModelConfig &a = expected.config(), &b = written->config();
  if (a.max_position_embeddings != b.max_position_embeddings || a.vocab_size != b.vocab_size)
    refuse(*written, fmt::format("context {} and vocabulary {}, expected {} and {}",
                                 b.max_position_embeddings, b.vocab_size, a.max_position_embeddings,
                                 a.vocab_size));
  const SharedReader same_form = in_form_of(expected, written);
  const auto tensors = expected_tensors(a, expected.form());
  const auto found = expected_tensors(b, same_form->form());
  std::set<std::string> names;
  for (const ExpectedTensor& tensor : found) names.insert(tensor.name + shape_text(tensor.shape));
  for (const ExpectedTensor& tensor : tensors) {
    if (found.size() != tensors.size() || !names.contains(tensor.name + shape_text(tensor.shape)))
      refuse(*written,
             fmt::format("it has {} tensors, expected {}, '{}' with shape {} among them",
                         found.size(), tensors.size(), tensor.name, shape_text(tensor.shape)));
    if (tensor.packed) {
      compare_codes(expected, *same_form, tensor, report);
    } else {
      compare_floats(expected, *same_form, tensor);
    }
    ++report.tensors;
  }
}

// The source's weights before the format rounds them. Quantising latent ones is no rounding of the
// format's; scales are made with the codes, and may be rounded like any float.
SharedReader unrounded(const SharedReader& source, const ModelReader& expected) {
  if (!source->config().quantized()) return source;
  if (!expected.config().quantized()) return dense_view(source);
  const bool packs = source->form() == WeightForm::latent && expected.form() == WeightForm::packed;
  return packs ? packed_view(source) : source;
}

// What the format's rounding did to the tensors that both have as floats.
void measure_rounding(const ModelReader& source, const ModelReader& expected,
                      VerifyReport& report) {
  std::set<std::string> of_source;
  for (const ExpectedTensor& tensor : expected_tensors(source.config(), source.form()))
    if (!tensor.packed) of_source.insert(tensor.name);
  for (const ExpectedTensor& tensor : expected_tensors(expected.config(), expected.form())) {
    if (tensor.packed || !of_source.contains(tensor.name)) continue;
    const std::vector<float> a = floats_of(source, tensor), b = floats_of(expected, tensor);
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (same_value(a[i], b[i])) continue;
      ++report.rounded;
      const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
      report.largest_rounding =
          std::max(report.largest_rounding, difference / std::abs(static_cast<double>(a[i])));
    }
  }
}

std::string name_of(const Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? fmt::format("{} ({})", *id, printable(tokenizer.token_name(*id))) : "none";
}

void compare_special_tokens(const Tokenizer& source, const Tokenizer& written,
                            VerifyReport& report) {
  if (source.document_start() != written.document_start())
    report.token_differences.push_back(fmt::format(
        "texts begin with token {} in what was written, with {} in the source",
        name_of(written, written.document_start()), name_of(source, source.document_start())));
  const auto ends = written.end_tokens();
  for (const std::int32_t id : source.end_tokens())
    if (std::ranges::find(ends, id) == ends.end())
      report.token_differences.push_back(fmt::format(
          "token {} ends a text in the source, but not in what was written", name_of(source, id)));
}

}  // namespace

VerifyReport verify_conversion(Backend& backend, const SharedReader& source,
                               const SharedReader& expected, const SharedReader& written) {
  VerifyReport report;
  compare_tensors(*expected, written, report);
  if (expected != source) measure_rounding(*unrounded(source, *expected), *expected, report);

  const auto tokenizer = source->tokenizer();
  if (written->tokenizer()->encode(kSampleText) != tokenizer->encode(kSampleText))
    refuse(*written, "its tokenizer encodes a sample text differently");
  compare_special_tokens(*tokenizer, *written->tokenizer(), report);
  const Sample sample = make_sample(source->config(), *tokenizer);
  report.tokens = std::ssize(sample.tokens);
  report.per_byte = !sample.bytes.empty();

  const std::int64_t vocab = source->config().vocab_size;
  const std::vector<float> of_written = logits_of(backend, *written, sample);
  std::vector<float> logits = logits_of(backend, *expected, sample);
  if (const LogitComparison c = compare_logits(logits, of_written); c.different > 0)
    refuse(*written, fmt::format("{} of {} logits differ, by at most {:.6g}", c.different,
                                 c.compared, c.largest_difference));
  if (expected != source) logits = logits_of(backend, *source, sample);
  report.logits = compare_logits(logits, of_written);
  report.source_bits = mean_bits(sample, logits, vocab);
  report.written_bits = mean_bits(sample, of_written, vocab);
  return report;
}

std::string describe(const VerifyReport& r) {
  std::string text = fmt::format("verified: {} tensors read again", r.tensors);
  if (r.codes > 0) text += fmt::format(", {} codes equal", r.codes);
  text += r.rounded == 0
              ? ", no float rounded\n"
              : fmt::format(", {} floats rounded by the format, by at most {:.3g} of their value\n",
                            r.rounded, r.largest_rounding);
  text += r.logits.different == 0
              ? fmt::format("logits: {} equal those of the source bit for bit", r.logits.compared)
              : fmt::format("logits: {} of {} differ from those of the source, by at most {:.6g}",
                            r.logits.different, r.logits.compared, r.logits.largest_difference);
  text += fmt::format("; bits/{} of a sample {:.6f}, of the source {:.6f}\n",
                      r.per_byte ? "byte" : "token", r.written_bits, r.source_bits);
  for (const std::string& line : r.token_differences) text += fmt::format("note: {}\n", line);
  return text;
}

}  // namespace bitnet
