// SPDX-License-Identifier: MIT
#include "core/convert/gguf_export.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/half.h"
#include "core/base/leftovers.h"
#include "core/checkpoint/tensor_report.h"
#include "core/convert/gguf_config.h"
#include "core/gguf/gguf_blocks.h"
#include "core/gguf/gguf_writer.h"
#include "core/quant/ternary.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

// llama.cpp's numbers of whole files' types; i2_s is its fork's.
std::int64_t file_type(GgufType type) {
  switch (type) {
    case GgufType::f16:
      return 1;
    case GgufType::bf16:
      return 32;
    case GgufType::tq1_0:
      return 36;
    case GgufType::tq2_0:
      return 37;
    case GgufType::q1_0:
    case GgufType::i2_s:
      return 40;
    case GgufType::q2_0:
      return 41;
    default:
      return 0;
  }
}

// The narrowest type that holds all values, without rounding.
GgufType exact_type(std::span<const float> values) {
  const auto all = [&](float (*rounded)(float)) {
    return std::all_of(values.begin(), values.end(),
                       [&](float value) { return rounded(value) == value; });
  };
  if (all([](float value) { return from_f16(to_f16(value)); })) return GgufType::f16;
  if (all([](float value) { return from_bf16(to_bf16(value)); })) return GgufType::bf16;
  return GgufType::f32;
}

// The tensors of a model in the form that gguf_form() gives, one at a time in memory.
class TensorWriter {
 public:
  TensorWriter(const ModelReader& form, const GgufTarget& target, ConversionProgress progress)
      : form_(form),
        target_(target),
        codes_in_file_(elements_of(target.type) != GgufElements::floats),
        progress_(std::move(progress)),
        warnings_(form.warnings()) {
    for (const TensorSpec& spec : list_tensors(form.config())) {
      weights_ += spec.shape.elements();
      if (spec.role == TensorRole::projection) {
        add_projection(spec);
      } else {
        add_floats(spec);
      }
    }
  }
  TensorWriter(const TensorWriter&) = delete;  // the tensors point here

  const std::vector<GgufTensorToWrite>& tensors() const { return tensors_; }
  std::int64_t weights() const { return weights_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  using Bytes = std::span<const std::uint8_t>;

  void add(std::string name, GgufType type, std::vector<std::int64_t> dims,
           std::function<Bytes()> fetch) {
    tensors_.push_back({.name = std::move(name),
                        .type = type,
                        .dims = std::move(dims),
                        .fetch = [this, fetch = std::move(fetch)] {
                          const Bytes bytes = fetch();
                          if (progress_) progress_(++done_, tensors_.size());
                          return bytes;
                        }});
  }

  void add_floats(const TensorSpec& spec) {
    const bool norm = spec.role == TensorRole::norm_gain;
    GgufType type = norm ? GgufType::f32 : target_.type;
    if (!norm && codes_in_file_) {
      read_floats(spec.name, spec.shape.elements());
      type = exact_type(floats_);
    }
    std::vector<std::int64_t> dims;
    for (int axis = spec.shape.rank() - 1; axis >= 0; --axis) dims.push_back(spec.shape[axis]);
    add(gguf_tensor_name(spec.name), type, std::move(dims), [this, spec, type] {
      read_floats(spec.name, spec.shape.elements());
      report(spec, nullptr);
      return encode_floats(type);
    });
  }

  void add_projection(const TensorSpec& spec) {
    const std::string name = gguf_tensor_name(spec.name);
    add(name, target_.type, {spec.shape[1], spec.shape[0]}, [this, spec] {
      return form_.config().quantized() ? encode_codes_of(spec) : encode_weights_of(spec);
    });
    // Its turn comes when scales_ are those of the codes before it.
    if (target_.scale_tensors) {
      add(gguf_scale_name(name), GgufType::f32, {1}, [this] {
        floats_ = scales_;
        return encode_floats(GgufType::f32);
      });
    }
  }

  // The row of the file that holds our row.
  std::int64_t row_in_file(const TensorSpec& spec, std::int64_t row) const {
    return gguf_permutes(*target_.arch, spec.name)
               ? gguf_permuted_row(row, form_.config().head_size())
               : row;
  }

  Bytes encode_weights_of(const TensorSpec& spec) {
    const std::int64_t rows = spec.shape[0], columns = spec.shape[1];
    read_floats(spec.name, rows * columns);
    report(spec, nullptr);
    std::vector<float> ordered(floats_.size());
    for (std::int64_t r = 0; r < rows; ++r)
      std::copy_n(floats_.begin() + r * columns, columns,
                  ordered.begin() + row_in_file(spec, r) * columns);
    floats_ = std::move(ordered);
    return encode_floats(target_.type);
  }

  Bytes encode_codes_of(const TensorSpec& spec) {
    const std::int64_t rows = spec.shape[0], columns = spec.shape[1];
    read_codes(spec);
    read_scales(spec);
    bytes_.assign(static_cast<std::size_t>(gguf_tensor_bytes(target_.type, columns, rows)), 0);
    const bool tail = target_.type == GgufType::i2_s;
    const std::size_t row_bytes =
        (bytes_.size() - (tail ? kI2sTailBytes : 0)) / static_cast<std::size_t>(rows);
    const std::int64_t block = codes_in_file_ ? find_gguf_type(target_.type)->block : columns;
    std::vector<float> block_scales(tail ? 0 : static_cast<std::size_t>(columns / block));
    std::vector<float> values(static_cast<std::size_t>(columns));
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto codes = std::span<const std::int8_t>(codes_).subspan(
          static_cast<std::size_t>(r * columns), static_cast<std::size_t>(columns));
      const auto to = std::span(bytes_).subspan(
          static_cast<std::size_t>(row_in_file(spec, r)) * row_bytes, row_bytes);
      if (codes_in_file_) {
        for (std::size_t b = 0; b < block_scales.size(); ++b)
          block_scales[b] = scale_at(r, static_cast<std::int64_t>(b) * block, columns);
        encode_codes(target_.type, codes, block_scales, to);
      } else {
        for (std::int64_t c = 0; c < columns; ++c)
          values[static_cast<std::size_t>(c)] =
              scale_at(r, c, columns) * static_cast<float>(codes[static_cast<std::size_t>(c)]);
        encode_gguf_floats(target_.type, values, to);
      }
    }
    if (tail) put_i2s_scale(bytes_, scales_[0]);
    return bytes_;
  }

  // What multiplies the code at (row, column) inside its tensor.
  float scale_at(std::int64_t row, std::int64_t column, std::int64_t columns) const {
    if (target_.scale_tensors) return 1.0f;
    const std::int64_t group = form_.config().weight_group_size;
    return group == 0 ? scales_[0]
                      : scales_[static_cast<std::size_t>((row * columns + column) / group)];
  }

  void read_codes(const TensorSpec& spec) {
    const std::int64_t rows = spec.shape[0], columns = spec.shape[1];
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows / 4 * columns));
    form_.read_packed(spec.name, packed);
    const CodeCounts counts = count_codes(packed);
    report(spec, &counts);
    if (target_.type == GgufType::q1_0 && counts.zero > 0)
      throw UsageError(
          fmt::format("tensor '{}' has {} weights of 0, and q1_0 holds only -1 and +1; "
                      "choose q2_0 (blocks of 64)",
                      spec.name, counts.zero));
    codes_.resize(static_cast<std::size_t>(rows * columns));
    BITNET_CHECK(unpack_codes(packed, rows, columns, codes_),
                 "tensor '{}' holds values that are no "
                 "codes",
                 spec.name);
  }

  void read_scales(const TensorSpec& spec) {
    scales_.resize(static_cast<std::size_t>(
        scale_count(form_.config().weight_quantizer(), spec.shape[0], spec.shape[1])));
    form_.read_floats(weight_scale_name(spec.name), scales_);
  }

  void read_floats(const std::string& name, std::int64_t elements) {
    floats_.resize(static_cast<std::size_t>(elements));
    form_.read_floats(name, floats_);
  }

  Bytes encode_floats(GgufType type) {
    const auto count = static_cast<std::int64_t>(floats_.size());
    bytes_.resize(static_cast<std::size_t>(gguf_tensor_bytes(type, count, 1)));
    encode_gguf_floats(type, floats_, bytes_);
    return bytes_;
  }

  // Of the codes, or of what is in floats_.
  void report(const TensorSpec& spec, const CodeCounts* codes) {
    TensorReport report;
    report.name = spec.name;
    for (int axis = 0; axis < spec.shape.rank(); ++axis) report.shape.push_back(spec.shape[axis]);
    report.bytes = static_cast<std::uint64_t>(spec.shape.elements());
    if (codes != nullptr) {
      report.codes = *codes;
    } else {
      report.values = float_statistics(floats_);
    }
    for (std::string& warning : value_warnings(report)) {
      if (std::find(warnings_.begin(), warnings_.end(), warning) == warnings_.end())
        warnings_.push_back(std::move(warning));
    }
  }

  const ModelReader& form_;
  GgufTarget target_;
  bool codes_in_file_;
  ConversionProgress progress_;
  std::vector<std::string> warnings_;
  std::vector<GgufTensorToWrite> tensors_;
  std::int64_t weights_ = 0;
  std::size_t done_ = 0;
  std::vector<float> floats_, scales_;
  std::vector<std::int8_t> codes_;
  std::vector<std::uint8_t> bytes_;
};

GgufMetadata make_metadata(const ModelReader& form, const GgufTarget& target,
                           GgufByteTokens byte_tokens, const std::string& name) {
  const ModelConfig& config = form.config();
  GgufMetadata metadata;
  metadata.add_text("general.architecture", target.arch->name);
  metadata.add_text("general.name", name);
  metadata.add_u32("general.file_type", file_type(target.type));
  if (elements_of(target.type) != GgufElements::floats)
    metadata.add_u32("general.quantization_version", 2);
  add_gguf_config(*target.arch, config, metadata);
  metadata.add_text(kGgufLinearKey, config.linear);
  if (config.quantized()) {
    metadata.add_u32(kGgufActivationBitsKey, config.activation_bits);
    if (config.weight_group_size != 0)
      metadata.add_u32(kGgufWeightGroupKey, config.weight_group_size);
  }
  add_gguf_vocabulary(*form.tokenizer(), config.vocab_size, byte_tokens, metadata);
  return metadata;
}

void check_replaceable(const fs::path& file, bool replace) {
  if (!fs::exists(fs::symlink_status(file))) return;
  if (!fs::is_regular_file(file))
    throw Error(fmt::format("{}: exists and is not a file; choose another", file.string()));
  if (!replace)
    throw Error(fmt::format("{}: already exists; choose another file, or replace it with --force",
                            file.string()));
  if (!begins_as_gguf(file) && !fs::is_empty(file))
    throw Error(
        fmt::format("{}: not replaced, because it is no GGUF file; choose another", file.string()));
}

// "<file>.export-tmp-<process id>", removed unless it is given the file's name. What killed
// processes left of the same file is removed first.
class FileInProgress {
 public:
  FileInProgress(const fs::path& target, bool replace)
      : target_(target),
        temporary_(fs::path(target) += fmt::format("{}{}", kInProgress, ::getpid())),
        replace_(replace) {
    check_replaceable(target_, replace_);
    if (target_.has_parent_path()) make_folders(target_.parent_path());
    remove_leftovers(target_, kInProgress);
  }
  ~FileInProgress() {
    std::error_code ignored;
    fs::remove(temporary_, ignored);
  }
  FileInProgress(const FileInProgress&) = delete;
  FileInProgress& operator=(const FileInProgress&) = delete;

  const fs::path& path() const { return temporary_; }
  // Throws as the constructor does for what has appeared there meanwhile.
  void move_to_target() {
    check_replaceable(target_, replace_);
    std::error_code code;
    fs::rename(temporary_, target_, code);
    if (code)
      throw Error(fmt::format("{}: cannot give the finished file its name: {}", target_.string(),
                              code.message()));
    sync_folder(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
  }

 private:
  static constexpr std::string_view kInProgress = ".export-tmp-";

  fs::path target_, temporary_;
  bool replace_;
};

}  // namespace

GgufExportReport export_gguf(const ModelReader& model, const fs::path& file,
                             const GgufExportOptions& options) {
  const SharedReader borrowed(&model, [](const ModelReader*) {});
  const GgufTarget target = choose_gguf_target(model, options);
  const SharedReader form = gguf_form(borrowed, options);
  FileInProgress output(file, options.replace);
  const GgufMetadata metadata =
      make_metadata(*form, target, options.byte_tokens, file.stem().string());
  TensorWriter writer(*form, target, options.progress);
  GgufExportReport report;
  report.bytes = write_gguf(output.path(), metadata, writer.tensors());
  report.tensors = std::ssize(writer.tensors());
  report.weights = writer.weights();
  report.warnings = writer.warnings();
  report.type = target.type;
  report.arch = target.arch->name;
  if (options.verify) options.verify(output.path());
  output.move_to_target();
  return report;
}

}  // namespace bitnet
