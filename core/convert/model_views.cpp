// SPDX-License-Identifier: MIT
#include "core/convert/model_views.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/base/error.h"
#include "core/base/half.h"

namespace bitnet {
namespace {

struct MatrixShape {
  std::int64_t rows = 0, columns = 0;
  std::size_t elements() const { return static_cast<std::size_t>(rows * columns); }
};

std::map<std::string, MatrixShape, std::less<>> projection_shapes(const ModelConfig& config) {
  std::map<std::string, MatrixShape, std::less<>> shapes;
  for (const TensorSpec& spec : list_tensors(config)) {
    if (spec.role == TensorRole::projection)
      shapes.emplace(spec.name, MatrixShape{spec.shape[0], spec.shape[1]});
  }
  return shapes;
}

// The source, unless a view says otherwise.
class View : public ModelReader {
 public:
  explicit View(SharedReader source)
      : source_(std::move(source)),
        config_(source_->config()),
        shapes_(projection_shapes(config_)) {}

  const std::filesystem::path& path() const override { return source_->path(); }
  std::string description() const override { return source_->description(); }
  const ModelConfig& config() const override { return config_; }
  WeightForm form() const override { return source_->form(); }
  std::vector<std::string> warnings() const override { return source_->warnings(); }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return source_->tokenizer(); }
  std::map<std::string, std::string> metadata() const override { return source_->metadata(); }
  FloatDtype float_dtype(std::string_view name) const override {
    return source_->float_dtype(name);
  }
  void read_floats(std::string_view name, std::span<float> to) const override {
    source_->read_floats(name, to);
  }
  void read_packed(std::string_view name, std::span<std::uint8_t> to) const override {
    source_->read_packed(name, to);
  }

 protected:
  // Null for other tensors than projections.
  const MatrixShape* projection(std::string_view name) const {
    const auto found = shapes_.find(name);
    return found == shapes_.end() ? nullptr : &found->second;
  }

  SharedReader source_;
  ModelConfig config_;

 private:
  std::map<std::string, MatrixShape, std::less<>> shapes_;
};

class PackedView final : public View {
 public:
  using View::View;
  WeightForm form() const override { return WeightForm::packed; }

  FloatDtype float_dtype(std::string_view name) const override {
    return weight_of(name).empty() ? source_->float_dtype(name) : FloatDtype::f32;
  }
  void read_floats(std::string_view name, std::span<float> to) const override {
    const std::string_view weight = weight_of(name);
    if (weight.empty()) return source_->read_floats(name, to);
    quantize(weight);
    BITNET_CHECK(scales_.size() == to.size(), "{} scales for {}", to.size(), name);
    std::copy(scales_.begin(), scales_.end(), to.begin());
  }
  void read_packed(std::string_view name, std::span<std::uint8_t> to) const override {
    quantize(name);
    pack_codes(codes_, projection(name)->rows, projection(name)->columns, to);
  }

 private:
  // The projection whose scales these are, or nothing.
  std::string_view weight_of(std::string_view name) const {
    constexpr std::string_view kSuffix = "_scale";
    if (!name.ends_with(kSuffix)) return {};
    name.remove_suffix(kSuffix.size());
    return projection(name) == nullptr ? std::string_view() : name;
  }

  // Codes and scales of one matrix are asked for one after the other.
  void quantize(std::string_view name) const {
    if (name == name_) return;
    const MatrixShape* shape = projection(name);
    BITNET_CHECK(shape != nullptr, "'{}' is no projection", name);
    const WeightQuantizer quantizer = config_.weight_quantizer();
    std::vector<float> weights(shape->elements());
    source_->read_floats(name, weights);
    codes_.resize(weights.size());
    scales_.resize(static_cast<std::size_t>(scale_count(quantizer, shape->rows, shape->columns)));
    quantize_weights(quantizer, weights, shape->rows, shape->columns, codes_, scales_);
    name_ = name;
  }

  mutable std::string name_;
  mutable std::vector<std::int8_t> codes_;
  mutable std::vector<float> scales_;
};

class DenseView final : public View {
 public:
  explicit DenseView(SharedReader packed)
      : View(std::move(packed)), quantizer_(config_.weight_quantizer()) {
    config_.linear = "float";
    config_.weight_group_size = 0;
    config_.weight_scale = "absmean";
    config_.activation_bits = 8;
  }
  WeightForm form() const override { return WeightForm::latent; }

  FloatDtype float_dtype(std::string_view name) const override {
    const MatrixShape* shape = projection(name);
    if (shape == nullptr) return source_->float_dtype(name);
    const std::vector<float> scales = read_scales(name, *shape);
    const bool exact =
        std::ranges::all_of(scales, [](float scale) { return from_bf16(to_bf16(scale)) == scale; });
    return exact ? FloatDtype::bf16 : FloatDtype::f32;
  }
  void read_floats(std::string_view name, std::span<float> to) const override {
    const MatrixShape* shape = projection(name);
    if (shape == nullptr) return source_->read_floats(name, to);
    const std::vector<float> scales = read_scales(name, *shape);
    std::vector<std::uint8_t> packed(shape->elements() / 4);
    source_->read_packed(name, packed);
    std::vector<std::int8_t> codes(shape->elements());
    BITNET_CHECK(
        to.size() == codes.size() && unpack_codes(packed, shape->rows, shape->columns, codes),
        "the codes of '{}'", name);
    const std::size_t group = codes.size() / scales.size();
    for (std::size_t i = 0; i < codes.size(); ++i)
      to[i] = scales[i / group] * static_cast<float>(codes[i]);
  }
  void read_packed(std::string_view name, std::span<std::uint8_t>) const override {
    BITNET_CHECK(false, "'{}' of a float model is not packed", name);
  }

 private:
  std::vector<float> read_scales(std::string_view name, const MatrixShape& shape) const {
    std::vector<float> scales(
        static_cast<std::size_t>(scale_count(quantizer_, shape.rows, shape.columns)));
    source_->read_floats(weight_scale_name(std::string(name)), scales);
    return scales;
  }

  WeightQuantizer quantizer_;
};

class BitLinearView final : public View {
 public:
  BitLinearView(SharedReader source, const std::string& linear) : View(std::move(source)) {
    config_.linear = linear;
  }
};

class UnitGainsView final : public View {
 public:
  explicit UnitGainsView(SharedReader source) : View(std::move(source)) {
    config_.norm_gain = true;
  }

  FloatDtype float_dtype(std::string_view name) const override {
    return is_gain(name) ? FloatDtype::bf16 : source_->float_dtype(name);
  }
  void read_floats(std::string_view name, std::span<float> to) const override {
    if (!is_gain(name)) return source_->read_floats(name, to);
    std::fill(to.begin(), to.end(), 1.0f);
  }

 private:
  static bool is_gain(std::string_view name) { return name.ends_with("norm.weight"); }
};

class RoundedView final : public View {
 public:
  RoundedView(SharedReader source, std::function<Rounding(std::string_view)> rounding)
      : View(std::move(source)), rounding_(std::move(rounding)) {}

  FloatDtype float_dtype(std::string_view name) const override {
    const FloatDtype stored = source_->float_dtype(name);
    const bool scale = name.ends_with(".weight_scale");  // always f32
    return !scale && rounding_(name) == Rounding::bf16 ? FloatDtype::bf16 : stored;
  }
  void read_floats(std::string_view name, std::span<float> to) const override {
    source_->read_floats(name, to);
    const Rounding rounding = rounding_(name);
    if (rounding == Rounding::none) return;
    const bool scale = name.ends_with(".weight_scale");
    for (float& value : to) {
      const float rounded =
          rounding == Rounding::bf16 ? from_bf16(to_bf16(value)) : from_f16(to_f16(value));
      if (scale) check_scale(name, value, rounded, rounding);
      value = rounded;
    }
  }

 private:
  // A scale is rounded by at most half a step of its precision: neither to 0 or infinity nor among
  // the subnormal numbers, where steps are wider.
  void check_scale(std::string_view name, float scale, float rounded, Rounding rounding) const {
    const float bound = rounding == Rounding::f16 ? 0x1p-11f : 0x1p-8f;
    if (std::abs(rounded - scale) <= bound * scale) return;
    throw UsageError(fmt::format(
        "{}: {} is {:.6g} and would become {:.6g} in {}, whose precision it is out of; "
        "choose {}",
        path().string(), name, scale, rounded, rounding == Rounding::f16 ? "fp16" : "bf16",
        config_.weight_group_size == 0 ? "i2_s or f32" : "f32"));
  }

  std::function<Rounding(std::string_view)> rounding_;
};

}  // namespace

SharedReader packed_view(SharedReader latent) {
  BITNET_CHECK(latent->form() == WeightForm::latent && latent->config().quantized(),
               "only latent weights of a quantised model have codes to make");
  return std::make_shared<PackedView>(std::move(latent));
}

SharedReader dense_view(SharedReader source) {
  BITNET_CHECK(source->config().quantized(), "the model is a float one already");
  if (source->form() == WeightForm::latent) source = packed_view(std::move(source));
  return std::make_shared<DenseView>(std::move(source));
}

SharedReader bit_linear_view(SharedReader floats, const std::string& linear) {
  if (floats->config().quantized())
    throw UsageError(
        fmt::format("{}: its projections are quantised already (linear = {}), and quantising them "
                    "again would lose their scales; --linear is for float models",
                    floats->path().string(), floats->config().linear));
  return std::make_shared<BitLinearView>(std::move(floats), linear);
}

SharedReader unit_gains_view(SharedReader source) {
  return std::make_shared<UnitGainsView>(std::move(source));
}

SharedReader rounded_view(SharedReader source,
                          std::function<Rounding(std::string_view name)> rounding) {
  return std::make_shared<RoundedView>(std::move(source), std::move(rounding));
}

}  // namespace bitnet
