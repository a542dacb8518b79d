// SPDX-License-Identifier: MIT
// GGUF files as ModelReaders. docs/formats.md says what is read and what is refused.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/convert/gguf_config.h"
#include "core/convert/gguf_names.h"
#include "core/convert/gguf_projection.h"
#include "core/convert/gguf_vocabulary.h"
#include "core/convert/model_reader.h"
#include "core/convert/ternary_weights.h"
#include "core/gguf/gguf_blocks.h"
#include "core/quant/ternary.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using Tensor = GgufFile::Tensor;

constexpr std::string_view kScaleSuffix = "_scale";  // of our names: weight_scale_name()
constexpr std::int64_t kMaxVocabulary = 1 << 24;     // as ModelConfig::visit_fields()
constexpr const char* kRopeFactors = "rope_freqs.weight";

class GgufReader final : public ModelReader {
 public:
  explicit GgufReader(const fs::path& path) : path_(path), file_(path) {
    GgufModelConfig read = read_gguf_config(file_);
    arch_ = read.arch;
    config_ = std::move(read.config);
    warnings_ = std::move(read.warnings);
    config_.tie_word_embeddings = file_.find(gguf_tensor_name("lm_head.weight")) == nullptr;
    check_config();
    collect_tensors();
    decide_form();
    check_config();
    check_groups();
    vocabulary_ = read_gguf_vocabulary(file_, config_.vocab_size);
    for (std::string& warning : vocabulary_.warnings) warnings_.push_back(std::move(warning));
    if (!vocabulary_.tokenizer)
      warnings_.push_back(fmt::format("text cannot be tokenized: {}", vocabulary_.fault));
    report_degenerate();
  }

  const fs::path& path() const override { return path_; }
  std::string description() const override { return fmt::format("GGUF, arch {}", arch_->name); }
  const ModelConfig& config() const override { return config_; }
  WeightForm form() const override { return form_; }
  std::vector<std::string> warnings() const override { return warnings_; }
  std::shared_ptr<const Tokenizer> tokenizer() const override {
    if (vocabulary_.tokenizer) return vocabulary_.tokenizer;
    throw FormatError(path_.string(), 0,
                      fmt::format("text cannot be tokenized: {}", vocabulary_.fault));
  }

  FloatDtype float_dtype(std::string_view name) const override {
    if (name.ends_with(kScaleSuffix)) return FloatDtype::f32;
    const auto found = floats_.find(name);
    const bool bf16 = found != floats_.end() ? found->second->type == GgufType::bf16
                                             : projection(name).holds_bf16();
    return bf16 ? FloatDtype::bf16 : FloatDtype::f32;
  }

  void read_floats(std::string_view name, std::span<float> to) const override {
    if (const auto found = floats_.find(name); found != floats_.end()) {
      BITNET_CHECK(
          static_cast<std::int64_t>(to.size()) == found->second->columns() * found->second->rows(),
          "{} floats for tensor '{}'", to.size(), name);
      decode_gguf_floats(found->second->type, found->second->bytes, to);
      return;
    }
    if (!name.ends_with(kScaleSuffix)) return projection(name).read_floats(0, to);
    const GgufProjection& p = projection(name.substr(0, name.size() - kScaleSuffix.size()));
    if (!p.holds_floats()) return p.read_scales(config_.weight_group_size, to);
    const TernaryMatrix ternary = read_ternary(p);
    BITNET_CHECK(ternary.scales.size() == to.size(), "{} scales for '{}'", to.size(), name);
    std::copy(ternary.scales.begin(), ternary.scales.end(), to.begin());
  }

  void read_packed(std::string_view name, std::span<std::uint8_t> to) const override {
    BITNET_CHECK(form_ == WeightForm::packed, "tensor '{}' is not packed", name);
    const GgufProjection& p = projection(name);
    if (!p.holds_floats()) return p.read_packed(to);
    pack_codes(read_ternary(p).codes, p.tensor().rows(), p.tensor().columns(), to);
  }

 private:
  const GgufProjection& projection(std::string_view name) const {
    const auto found = projections_.find(name);
    BITNET_CHECK(found != projections_.end(), "the model has no tensor '{}'", name);
    return found->second;
  }

  // Of floats that decide_form() has found to be ternary.
  TernaryMatrix read_ternary(const GgufProjection& p) const {
    const std::int64_t rows = p.tensor().rows(), columns = p.tensor().columns();
    std::vector<float> weights(static_cast<std::size_t>(rows * columns));
    p.read_floats(0, weights);
    return split_ternary(weights, rows, columns, config_.weight_group_size);
  }

  // Finds every tensor of the configuration, and nothing else.
  void collect_tensors() {
    if (static_cast<std::uint64_t>(config_.num_hidden_layers) > file_.tensors().size())
      file_.refuse(fmt::format("{}.block_count", arch_->name),
                   fmt::format("is {}, but the file has only {} tensors", config_.num_hidden_layers,
                               file_.tensors().size()));
    const Tensor& embedding = find("token_embd.weight");
    config_.vocab_size = embedding.rows();
    if (config_.vocab_size < 2 || config_.vocab_size > kMaxVocabulary)
      file_.refuse(embedding, fmt::format("has {} rows, expected 2 to {} tokens",
                                          config_.vocab_size, kMaxVocabulary));

    std::set<std::string, std::less<>> known;
    for (const TensorSpec& spec : list_tensors(config_)) {
      const std::string name = gguf_tensor_name(spec.name);
      const Tensor& tensor = find(name);
      known.insert(name);
      check_shape(tensor, spec.shape);
      if (spec.role != TensorRole::projection) {
        if (elements_of(tensor.type) != GgufElements::floats) refuse_type(tensor);
        floats_.emplace(spec.name, &tensor);
        continue;
      }
      if (elements_of(tensor.type) == GgufElements::foreign) refuse_type(tensor);
      const std::string scale_name = gguf_scale_name(name);
      known.insert(scale_name);
      projections_.emplace(
          spec.name, GgufProjection(file_, tensor, read_factor(scale_name),
                                    gguf_permutes(*arch_, spec.name) ? config_.head_size() : 0));
    }
    for (const Tensor& tensor : file_.tensors()) {
      if (known.contains(tensor.name) || (tensor.name == kRopeFactors && neutral(tensor))) continue;
      file_.refuse(tensor, fmt::format("is no part of a model of arch {} with {} layers; this "
                                       "program would compute another function than the file's",
                                       arch_->name, config_.num_hidden_layers));
    }
  }

  const Tensor& find(const std::string& name) const {
    const Tensor* tensor = file_.find(name);
    if (tensor == nullptr)
      throw FormatError(
          file_.name(), 0,
          fmt::format("tensor '{}' is missing from a model of arch {}", name, arch_->name));
    return *tensor;
  }

  void check_shape(const Tensor& tensor, const Shape& shape) const {
    std::vector<std::int64_t> expected;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) expected.push_back(shape[axis]);
    std::vector<std::int64_t> found = tensor.dims;
    while (found.size() > expected.size() && found.back() == 1) found.pop_back();
    if (found != expected)
      file_.refuse(tensor, fmt::format("has the dimensions [{}], expected [{}]",
                                       fmt::join(found, ", "), fmt::join(expected, ", ")));
  }

  [[noreturn]] void refuse_type(const Tensor& tensor) const {
    file_.refuse(
        tensor, fmt::format("is of type {}, which this program does not decode; it reads f32, f16, "
                            "bf16, q8_0 everywhere, and for projections q1_0, q2_0, tq1_0, tq2_0, "
                            "i2_s",
                            to_string(tensor.type)));
  }

  // The "….scale" tensor of a projection, or 1.
  float read_factor(const std::string& name) const {
    const Tensor* tensor = file_.find(name);
    if (tensor == nullptr) return 1.0f;
    if (tensor->type != GgufType::f32 || tensor->columns() * tensor->rows() != 1)
      file_.refuse(*tensor, "is a scale and must be one f32");
    float factor = 0;
    decode_gguf_floats(tensor->type, tensor->bytes, {&factor, 1});
    if (!std::isfinite(factor) || factor == 0)
      file_.refuse(*tensor, fmt::format("scale {}, expected a finite number other than 0", factor));
    return factor;
  }

  // Factors of the rotary frequencies, which we do not compute unless they are all 1.
  bool neutral(const Tensor& tensor) const {
    if (tensor.type != GgufType::f32) return false;
    std::vector<float> factors(static_cast<std::size_t>(tensor.columns() * tensor.rows()));
    decode_gguf_floats(tensor.type, tensor.bytes, factors);
    for (const float factor : factors) {
      if (factor != 1.0f)
        file_.refuse(tensor, "rotary frequencies with factors other than 1 are not computed here");
    }
    return true;
  }

  // Codes and scales, or floats; and what the codes' scales are shared by.
  void decide_form() {
    bool floats = false, trits = false, signs = false;
    const GgufProjection *a_float = nullptr, *a_code = nullptr;
    for (const auto& [name, p] : projections_) {
      const GgufElements elements = elements_of(p.tensor().type);
      (elements == GgufElements::floats ? a_float : a_code) = &p;
      floats = floats || elements == GgufElements::floats;
      trits = trits || elements == GgufElements::trits;
      signs = signs || elements == GgufElements::signs;
    }
    if (a_float != nullptr && a_code != nullptr)
      file_.refuse(a_float->tensor(),
                   fmt::format("is of type {}, but {} of type {}: this program runs models whose "
                               "projections are all quantised or all floats",
                               to_string(a_float->tensor().type), a_code->tensor().name,
                               to_string(a_code->tensor().type)));
    const std::string told = file_.has(kGgufLinearKey) ? file_.text(kGgufLinearKey) : "";
    if (!told.empty() && told != "float" && told != "b158" && told != "b1")
      file_.refuse(kGgufLinearKey,
                   fmt::format("is {}, expected float, b158 or b1", printable(told)));
    if (file_.has(kGgufWeightGroupKey)) read_group_size();

    if (floats && !find_codes_in_floats(told)) {
      config_.linear = "float";
      config_.weight_group_size = 0;
      form_ = WeightForm::latent;
      return;
    }
    if (!floats && told == "float")
      file_.refuse(kGgufLinearKey, "is 'float', but the projections hold codes");
    form_ = WeightForm::packed;
    config_.linear = !told.empty() ? told : signs && !trits ? "b1" : "b158";
    if (!floats && !file_.has(kGgufWeightGroupKey)) {
      for (const auto& [name, p] : projections_) {
        if (p.has_single_scale()) continue;
        const std::int64_t block = find_gguf_type(p.tensor().type)->block;
        const std::int64_t group = config_.weight_group_size;
        config_.weight_group_size = group == 0 ? block : std::min(group, block);
      }
    }
    decide_activations();
  }

  void read_group_size() {
    const std::int64_t group = file_.integer(kGgufWeightGroupKey, 0, 1 << 20);
    for (const auto& [name, p] : projections_) {
      if (group == 0 || p.tensor().columns() % group == 0) continue;
      file_.refuse(kGgufWeightGroupKey,
                   fmt::format("is {}, which does not divide the {} columns of {}", group,
                               p.tensor().columns(), p.tensor().name));
    }
    config_.weight_group_size = group;
  }

  void check_groups() const {
    if (form_ != WeightForm::packed) return;
    for (const auto& [name, p] : projections_) {
      if (p.holds_floats() || p.agrees_with(config_.weight_group_size)) continue;
      file_.refuse(p.tensor(), fmt::format("has scales that differ within what {} = {} says shares "
                                           "one",
                                           kGgufWeightGroupKey, config_.weight_group_size));
    }
  }

  // Do float tensors hold trits times scales? Then the model is one of codes.
  bool find_codes_in_floats(const std::string& told) {
    if (told == "float") return false;
    const auto groups = find_ternary_groups(
        config_, [this](const std::string& name, std::int64_t first, std::span<float> to) {
          projection(name).read_floats(first, to);
        });
    if (!groups && !told.empty())
      file_.refuse(kGgufLinearKey, fmt::format("is '{}', but the projections hold floats that are "
                                               "not codes times scales",
                                               told));
    if (groups) config_.weight_group_size = *groups;
    if (groups && told.empty())
      warnings_.push_back(
          "the projections are stored as floats that are all -s, 0 or s: read as ternary codes and "
          "scales");
    return groups.has_value();
  }

  void decide_activations() {
    if (file_.has(kGgufActivationBitsKey)) {
      config_.activation_bits = file_.integer(kGgufActivationBitsKey, 0, 8);
      return;
    }
    if (arch_->sub_norms) return;  // of arch bitnet*: 8 bits
    config_.activation_bits = 0;
    warnings_.push_back(fmt::format(
        "arch {} does not say whether the model was trained with 8-bit activations; they are not "
        "quantised (as for TriLM). If it was, import it from its Hugging Face folder instead",
        arch_->name));
  }

  void check_config() {
    try {
      config_.validate();
    } catch (const UsageError& error) {
      throw FormatError(file_.name(), 0, error.what());
    }
  }

  // In the words of core/checkpoint/tensor_report.h. Found at the first weights that differ, so that
  // opening a sound file costs nothing.
  void report_degenerate() {
    for (const auto& [name, tensor] : floats_) {
      if (gguf_floats_are_zero(*tensor))
        warnings_.push_back(fmt::format("tensor {}: all values are 0", printable(name)));
    }
    for (const auto& [name, p] : projections_) {
      const std::optional<int> code = p.only_code();
      if (!code) continue;
      warnings_.push_back(fmt::format("tensor {}: all {} are {}", printable(name),
                                      form_ == WeightForm::packed ? "codes" : "values",
                                      *code == 0 ? "0" : "equal"));
    }
  }

  fs::path path_;
  GgufFile file_;
  const GgufArch* arch_ = nullptr;
  ModelConfig config_;
  WeightForm form_ = WeightForm::latent;
  GgufVocabulary vocabulary_;
  std::vector<std::string> warnings_;
  std::map<std::string, const Tensor*, std::less<>> floats_;  // by our names
  std::map<std::string, GgufProjection, std::less<>> projections_;
};

}  // namespace

std::unique_ptr<ModelReader> open_gguf(const fs::path& file) {
  return std::make_unique<GgufReader>(file);
}

}  // namespace bitnet
