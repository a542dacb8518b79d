// SPDX-License-Identifier: MIT
// GGUF files of other programs: their quirks read right, and what we would compute wrongly refused.
#include <algorithm>
#include <cmath>
#include <functional>

#include "core/base/error.h"
#include "core/base/half.h"
#include "core/convert/gguf_names.h"
#include "core/gguf/gguf_blocks.h"
#include "core/tokenizer/byte_alphabet.h"
#include "tests/convert/gguf_models.h"
#include "tests/support/catch.h"

using namespace bitnet;
using namespace bitnet::test;
namespace fs = std::filesystem;

namespace {

// A file of ours that a test changes into one of another program's.
class Changed {
 public:
  explicit Changed(const ModelConfig& config, GgufType type) : backend_(make_cpu_backend(1)) {
    GgufExportOptions options;
    options.type = type;
    source_ = saved_model(*backend_, config, folder_ / "model");
    export_gguf(*source_, path(), options);
    parts_ = std::make_unique<GgufParts>(path());
    for (const char* key : {kGgufLinearKey, kGgufActivationBitsKey, kGgufWeightGroupKey})
      parts_->erase(key);
  }
  fs::path path() const { return folder_ / "x.gguf"; }
  GgufParts& parts() { return *parts_; }
  Backend& backend() { return *backend_; }
  const SharedReader& source() const { return source_; }

  SharedReader read() {
    parts_->write(path());
    return open_gguf(path());
  }
  void check_refused(const std::function<void(GgufParts&)>& change, const std::string& reason) {
    const GgufParts before = *parts_;
    change(*parts_);
    INFO(reason);
    CHECK_THROWS_AS(read(), FormatError);
    CHECK_THROWS_WITH(read(), Catch::Contains(reason));
    *parts_ = before;
  }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_;
  SharedReader source_;
  std::unique_ptr<GgufParts> parts_;
};

const std::string kUp = "model.layers.0.mlp.up_proj.weight";

bool warns(const ModelReader& reader, const std::string& text) {
  const auto warnings = reader.warnings();
  return std::any_of(warnings.begin(), warnings.end(), [&](const std::string& warning) {
    return warning.find(text) != std::string::npos;
  });
}

// Rewrites the codes and scales of a tensor of blocks.
void put_blocks(GgufParts::Tensor& tensor, std::span<const std::int8_t> codes,
                std::span<const float> scales) {
  encode_codes(tensor.type, codes, scales, tensor.bytes);
}

}  // namespace

TEST_CASE("GGUF names of tensors, and the permutation of q and k") {
  CHECK(gguf_tensor_name("model.embed_tokens.weight") == "token_embd.weight");
  CHECK(gguf_tensor_name("model.layers.12.self_attn.o_proj.weight") == "blk.12.attn_output.weight");
  CHECK(gguf_tensor_name("model.layers.0.post_attention_layernorm.weight") ==
        "blk.0.ffn_norm.weight");
  CHECK(gguf_scale_name("blk.0.attn_q.weight") == "blk.0.attn_q.scale");
  CHECK_THROWS_AS(gguf_tensor_name("model.layers.0.bias"), ContractError);
  std::vector<std::int64_t> rows;
  for (std::int64_t row = 0; row < 16; ++row) rows.push_back(gguf_permuted_row(row, 8));
  CHECK(rows == std::vector<std::int64_t>{0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15});
}

TEST_CASE("GGUF blocks with several scales become groups of weights, as in TriLM") {
  for (const GgufType type : {GgufType::tq2_0, GgufType::tq1_0, GgufType::q2_0}) {
    INFO(to_string(type));
    Changed file(gguf_config("", "llama"), type);
    GgufParts::Tensor& up = file.parts().at("blk.0.ffn_up.weight");
    const std::int64_t block = find_gguf_type(type)->block, rows = 512, columns = 256;
    std::vector<std::int8_t> codes(static_cast<std::size_t>(rows * columns));
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = static_cast<std::int8_t>(i * 7 % 3) - 1;
    std::vector<float> scales(codes.size() / static_cast<std::size_t>(block), 0.5f);
    std::fill(scales.begin() + std::ssize(scales) / 2, scales.end(), 0.25f);  // two shards
    scales[1] = 0;                                                            // a block of zeros
    scales[2] = -0.5f;  // codes of the other sign
    put_blocks(up, codes, scales);
    const SharedReader read = file.read();
    CHECK(read->config().weight_group_size == block);
    CHECK(read->config().activation_bits == 0);
    CHECK(warns(*read, "activations"));
    CHECK(read->config().linear == "b158");

    const auto found = read_codes(*read, kUp, rows, columns);
    const auto found_scales = read_floats(*read, kUp + "_scale", std::ssize(scales));
    std::size_t different = 0;
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const auto b = i / static_cast<std::size_t>(block);
      const float expected = scales[b] * static_cast<float>(codes[i]);
      different +=
          found_scales[b] > 0 && found_scales[b] * static_cast<float>(found[i]) == expected ? 0 : 1;
    }
    CHECK(different == 0);
    CHECK(found_scales[0] == 0.5f);
    // All projections have scales of the same groups.
    const auto others =
        read_floats(*read, "model.layers.1.self_attn.k_proj.weight_scale", 128 * 256 / block);
    CHECK(std::all_of(others.begin(), others.end(), [&](float s) { return s == others[0]; }));
    CHECK(load_model(file.backend(), *read)->config().weight_group_size == block);
  }
}

TEST_CASE("a GGUF tensor whose blocks agree has one scale; blocks of zeros fit any") {
  Changed file(gguf_config("", "llama"), GgufType::q2_0);
  GgufParts::Tensor& up = file.parts().at("blk.0.ffn_up.weight");
  std::vector<std::int8_t> codes(512 * 256, 1);
  std::vector<float> scales(codes.size() / 64, 0.75f);
  scales[0] = 0;
  scales[7] = -0.75f;
  put_blocks(up, codes, scales);
  const SharedReader read = file.read();
  CHECK(read->config().weight_group_size == 0);
  CHECK(read_floats(*read, kUp + "_scale", 1)[0] == 0.75f);
  const auto found = read_codes(*read, kUp, 512, 256);
  CHECK(found[0] == 0);
  CHECK(found[64] == 1);
  CHECK(found[7 * 64] == -1);
}

TEST_CASE("a GGUF scale tensor multiplies the scales of its weights") {
  Changed file(gguf_config(), GgufType::q2_0);
  GgufParts::Tensor& scale = file.parts().at("blk.0.ffn_up.scale");
  const float factor = -0.3f;
  std::memcpy(scale.bytes.data(), &factor, sizeof factor);
  const SharedReader read = file.read();
  CHECK(read_floats(*read, kUp + "_scale", 1)[0] == 0.3f);
  const auto codes = read_codes(*read, kUp, 512, 256);
  auto ours = read_codes(*packed_view(file.source()), kUp, 512, 256);
  for (std::int8_t& code : ours) code = static_cast<std::int8_t>(-code);
  CHECK(codes == ours);
  file.check_refused([](GgufParts& parts) { parts.at("blk.0.ffn_up.scale").bytes.assign(4, 0); },
                     "scale 0, expected a finite number");
  file.check_refused([](GgufParts& parts) { parts.at("blk.0.ffn_up.scale").type = GgufType{26}; },
                     "is a scale and must be one f32");
}

TEST_CASE("float GGUF tensors that hold -s, 0 and s are a ternary model") {
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16}) {
    INFO(to_string(type));
    Changed file(gguf_config("", "bitnet-relu2"), type);
    const SharedReader read = file.read();
    CHECK(read->form() == WeightForm::packed);
    CHECK(read->config().activation_bits == 8);
    CHECK(warns(*read, "stored as floats"));
    CHECK(read_codes(*read, kUp, 512, 256) ==
          read_codes(*packed_view(file.source()), kUp, 512, 256));
  }
  Changed floats(gguf_config("float", "llama"), GgufType::f32);
  const SharedReader read = floats.read();
  CHECK(read->form() == WeightForm::latent);
  CHECK(read->config().linear == "float");
  CHECK(read_floats(*read, kUp, 512 * 256) == read_floats(*floats.source(), kUp, 512 * 256));
  CHECK(read->float_dtype(kUp) == FloatDtype::f32);
  Changed narrow(gguf_config("float", "llama"), GgufType::bf16);
  CHECK(narrow.read()->float_dtype(kUp) == FloatDtype::bf16);
  GgufExportOptions options;
  CHECK(choose_gguf_target(*narrow.read(), options).type == GgufType::bf16);
}

TEST_CASE("a GGUF file like the official 2B4T's is read: i2_s, fp16 embedding, no pre-tokenizer") {
  ModelConfig config = gguf_config("", "bitnet-relu2");
  config.vocab_size = 260;
  const auto backend = make_cpu_backend(1);
  const TemporaryFolder folder;
  const SharedReader source = saved_model(*backend, config, folder / "model");
  GgufExportOptions options;
  options.byte_tokens = GgufByteTokens::gpt2;
  export_gguf(*source, folder / "x.gguf", options);
  GgufParts parts(folder / "x.gguf");
  // Its vocabulary is a byte-level BPE: 256 bytes, one merge, an end and a turn's end.
  std::string tokens, types;
  for (int byte = 0; byte < 256; ++byte) {
    tokens += raw_string(byte_character(static_cast<std::uint8_t>(byte)));
    types += raw(std::int32_t{1});
  }
  for (const char* name : {"ab", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"})
    tokens += raw_string(name);
  for (const std::int32_t type : {1, 3, 3, 3}) types += raw(type);
  const auto set_array = [&](const std::string& key, GgufValueType type, std::uint64_t count,
                             const std::string& values) {
    parts.set(key, array_of(key, type, count, values));
  };
  set_array("tokenizer.ggml.tokens", GgufValueType::string, 260, tokens);
  set_array("tokenizer.ggml.token_type", GgufValueType::i32, 260, types);
  set_array("tokenizer.ggml.merges", GgufValueType::string, 1, raw_string("a b"));
  for (const char* key : {"tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token", kGgufLinearKey,
                          kGgufActivationBitsKey})
    parts.erase(key);
  parts.set_u32("tokenizer.ggml.bos_token_id", 257);
  parts.set_u32("tokenizer.ggml.eos_token_id", 258);
  parts.set_u32("general.file_type", 40);
  parts.set_text("bitnet-b1.58.rope.scaling.type", "linear");
  parts.set_f32("bitnet-b1.58.rope.scaling.factor", 1.0f);
  GgufParts::Tensor& embedding = parts.at("token_embd.weight");
  embedding.type = GgufType::f16;
  std::vector<float> values = read_floats(*source, "model.embed_tokens.weight", 260 * 256);
  embedding.bytes.resize(values.size() * 2);
  encode_gguf_floats(GgufType::f16, values, embedding.bytes);
  // The scale is repeated behind the codes, rather than padded.
  GgufParts::Tensor& up = parts.at("blk.0.ffn_up.weight");
  for (std::size_t i = 4; i < 32; ++i)
    up.bytes[up.bytes.size() - 32 + i] = up.bytes[up.bytes.size() - 32 + i % 4];
  parts.write(folder / "y.gguf");

  const SharedReader read = open_gguf(folder / "y.gguf");
  CHECK(read->description() == "GGUF, arch bitnet-b1.58");
  CHECK(read->config().hidden_act == "relu2");
  CHECK(read->config().activation_bits == 8);
  CHECK(read->config().tie_word_embeddings);
  CHECK(warns(*read, "no pre-tokenizer"));
  const auto tokenizer = read->tokenizer();
  CHECK(tokenizer->encode("cab") == std::vector<std::int32_t>{'c', 256});
  CHECK(tokenizer->document_start() == 257);
  const auto ends = tokenizer->end_tokens();
  CHECK(std::vector<std::int32_t>(ends.begin(), ends.end()) == std::vector<std::int32_t>{258, 259});
  const SharedReader expected = packed_view(source);
  CHECK(read_codes(*read, kUp, 512, 256) == read_codes(*expected, kUp, 512, 256));
  CHECK(read_floats(*read, kUp + "_scale", 1) == read_floats(*expected, kUp + "_scale", 1));
  for (float& value : values) value = from_f16(to_f16(value));
  CHECK(read_floats(*read, "model.embed_tokens.weight", 260 * 256) == values);

  // Without add_bos_token the pre-tokenizer decides: of these, qwen2 has no token before a text.
  parts.set_text("tokenizer.ggml.pre", "qwen2");
  parts.write(folder / "q.gguf");
  CHECK(open_gguf(folder / "q.gguf")->tokenizer()->document_start() == 258);  // the end before

  // Written again, it names the pre-tokenizer that was assumed.
  export_gguf(*read, folder / "z.gguf", {});
  const SharedReader again = open_gguf(folder / "z.gguf");
  CHECK(GgufFile(folder / "z.gguf").text("tokenizer.ggml.pre") == "llama-bpe");
  CHECK(again->tokenizer()->fingerprint() == tokenizer->fingerprint());
  CHECK(again->warnings().empty());
  CHECK(GgufFile(folder / "z.gguf").find("token_embd.weight")->type == GgufType::f16);
}

TEST_CASE("a GGUF vocabulary that we do not compute refuses only the tokenizer") {
  Changed file(gguf_config(), GgufType::q2_0);
  file.parts().set_text("tokenizer.ggml.model", "bert");
  SharedReader read = file.read();
  CHECK(warns(*read, "of the kind 'bert'"));
  CHECK_THROWS_WITH(read->tokenizer(), Catch::Contains("of the kind 'bert'"));
  CHECK(load_model(file.backend(), *read)->config().vocab_size == 256);
  file.parts().erase("tokenizer.ggml.model");
  CHECK_THROWS_WITH(file.read()->tokenizer(), Catch::Contains("no vocabulary"));
  file.parts().set_text("tokenizer.ggml.model", "gpt2");
  file.check_refused([](GgufParts&) {}, "'tokenizer.ggml.merges' is missing");
  file.parts().set("tokenizer.ggml.merges",
                   array_of("tokenizer.ggml.merges", GgufValueType::string, 1, raw_string("a b")));
  file.parts().set_text("tokenizer.ggml.pre", "klingon");
  CHECK_THROWS_WITH(file.read()->tokenizer(),
                    Catch::Contains("pre-tokenizer 'klingon' is unknown"));
}

TEST_CASE("a GGUF model that is not the one of its architecture is refused") {
  Changed file(gguf_config("", "llama"), GgufType::q2_0);
  using Parts = GgufParts;
  file.check_refused([](Parts& p) { p.set_text("general.architecture", "qwen3"); },
                     "is 'qwen3'; this program computes bitnet, bitnet-b1.58, bitnet-25, llama");
  file.check_refused([](Parts& p) { p.erase("general.architecture"); }, "is missing");
  file.check_refused([](Parts& p) { p.erase("llama.block_count"); },
                     "metadata key 'llama.block_count' is missing; expected an integer from 1");
  file.check_refused([](Parts& p) { p.set_u32("llama.block_count", 3); },
                     "tensor 'blk.2.attn_norm.weight' is missing");
  file.check_refused([](Parts& p) { p.set_u32("llama.block_count", 4096); },
                     "but the file has only");
  file.check_refused([](Parts& p) { p.set_u32("llama.block_count", 1); },
                     "is no part of a model of arch llama with 1 layers");
  const std::string rotated = "llama.rope.dimension_count";
  file.check_refused(
      [&](Parts& p) {
        p.set_u32("llama.embedding_length", 320);
        p.erase(rotated);
      },
      "has the dimensions [256, 256], expected [320, 256]");
  file.check_refused([](Parts& p) { p.set_u32("llama.attention.head_count", 3); },
                     "which does not divide");
  file.check_refused(
      [&](Parts& p) {
        p.set_u32("llama.attention.head_count", 256);
        p.erase(rotated);
      },
      "head_dim = 1 must be a multiple of 16");
  file.check_refused([&](Parts& p) { p.set_u32(rotated, 32); }, "partly rotated heads");
  file.check_refused([](Parts& p) { p.set_text("llama.rope.scaling.type", "yarn"); },
                     "scaled rotary positions");
  file.check_refused([](Parts& p) { p.set_f32("llama.rope.scaling.factor", 4); },
                     "scaled rotary positions");
  file.check_refused([](Parts& p) { p.set_u32("llama.expert_count", 8); }, "mixtures of experts");
  file.check_refused([](Parts& p) { p.set_u32("split.count", 2); }, "join the parts");
  file.check_refused([](Parts& p) { p.set_u32("llama.attention.sliding_window", 16); },
                     "attention to a window");
  file.check_refused([](Parts& p) { p.set_f32("llama.attention.layer_norm_rms_epsilon", 2); },
                     "is 2, expected 1e-12 to 1");
  file.check_refused([](Parts& p) { p.set_text("llama.hidden_activation", "swish"); },
                     "expected silu, relu2 or gelu");
  file.check_refused(
      [](Parts& p) {
        p.set_u32("llama.attention.key_length", 64);
        p.set_u32("llama.attention.value_length", 32);
      },
      "values have another width");
  file.check_refused([](Parts& p) { p.erase_tensor("blk.1.ffn_norm.weight"); },
                     "tensor 'blk.1.ffn_norm.weight' is missing from a model of arch llama");
  file.check_refused(
      [](Parts& p) {
        p.tensors.push_back(
            {"blk.0.attn_q.bias", GgufType::f32, {256}, std::vector<std::uint8_t>(1024)});
      },
      "tensor 'blk.0.attn_q.bias': is no part of a model");
  file.check_refused(
      [](Parts& p) {
        GgufParts::Tensor& up = p.at("blk.0.ffn_up.weight");
        up.type = GgufType{12};
        up.bytes.resize(512 * 144);
      },
      "is of type q4_k, which this program does not decode");
  file.check_refused(
      [](Parts& p) {
        GgufParts::Tensor& up = p.at("blk.0.ffn_up.weight");
        up.type = GgufType::f16;
        up.bytes.resize(512 * 256 * 2);
      },
      "this program runs models whose projections are all quantised or all floats");
  file.check_refused(
      [](Parts& p) {
        GgufParts::Tensor& norm = p.at("blk.0.ffn_norm.weight");
        norm.type = GgufType::q2_0;
        norm.bytes.resize(4 * 18);
      },
      "is of type q2_0, which this program does not decode; it reads f32");
  std::vector<std::uint8_t> factors(32 * 4);
  for (std::size_t i = 0; i < 32; ++i)
    factors[4 * i + 2] = 0x80, factors[4 * i + 3] = 0x3f;  // 1.0f
  file.parts().tensors.push_back({"rope_freqs.weight", GgufType::f32, {32}, factors});
  CHECK(file.read()->config().num_hidden_layers == 2);
  file.check_refused([](Parts& p) { p.at("rope_freqs.weight").bytes[3] = 0x40; },
                     "factors other than 1");
  file.parts().set_u32("llama.future_feature", 1);
  CHECK(warns(*file.read(), "'llama.future_feature' is not known and was ignored"));
}

TEST_CASE("damaged weights of a GGUF model are refused when they are read") {
  for (const GgufType type : {GgufType::q2_0, GgufType::tq2_0, GgufType::i2_s}) {
    INFO(to_string(type));
    Changed file(gguf_config("", "bitnet-relu2"), type);
    GgufParts::Tensor& up = file.parts().at("blk.0.ffn_up.weight");
    const std::size_t row = type == GgufType::i2_s ? 64 : type == GgufType::q2_0 ? 72 : 66;
    up.bytes[3 * row + 5] = 0xff;
    const SharedReader read = file.read();
    std::vector<std::uint8_t> packed(512 / 4 * 256);
    CHECK_THROWS_AS(read->read_packed(kUp, packed), FormatError);
    CHECK_THROWS_WITH(read->read_packed(kUp, packed),
                      Catch::Contains("the 2-bit value 3 at row 3, column"));
  }
  Changed file(gguf_config("", "bitnet-relu2"), GgufType::i2_s);
  file.check_refused(
      [](GgufParts& parts) {
        auto& bytes = parts.at("blk.0.ffn_up.weight").bytes;
        bytes[bytes.size() - 29] = 0x7f;
        bytes[bytes.size() - 30] = 0xc0;
      },
      "expected a finite number");
}

TEST_CASE("GGUF tensors without information become warnings") {
  Changed file(gguf_config("", "bitnet-relu2"), GgufType::i2_s);
  CHECK(file.read()->warnings().empty());
  auto& up = file.parts().at("blk.0.ffn_up.weight").bytes;
  std::fill(up.begin(), up.end(), std::uint8_t{0});  // codes -1 of scale 0
  auto& gate = file.parts().at("blk.0.ffn_gate.weight").bytes;
  std::fill(gate.begin(), gate.end() - 32, std::uint8_t{0xaa});  // codes +1
  auto& norm = file.parts().at("blk.1.ffn_norm.weight").bytes;
  std::fill(norm.begin(), norm.end(), std::uint8_t{0});
  const SharedReader read = file.read();
  CHECK(warns(*read, "tensor 'model.layers.0.mlp.up_proj.weight': all codes are 0"));
  CHECK(warns(*read, "tensor 'model.layers.0.mlp.gate_proj.weight': all codes are equal"));
  CHECK(warns(*read, "tensor 'model.layers.1.post_attention_layernorm.weight': all values are 0"));
  CHECK(read_floats(*read, kUp + "_scale", 1)[0] == kScaleEps);
  const auto codes = read_codes(*read, kUp, 512, 256);
  CHECK(std::all_of(codes.begin(), codes.end(), [](std::int8_t code) { return code == 0; }));
}

TEST_CASE("what a GGUF file says about quantisation must fit its tensors") {
  Changed file(gguf_config("", "llama"), GgufType::q2_0);
  using Parts = GgufParts;
  file.check_refused([](Parts& p) { p.set_text(kGgufLinearKey, "float"); },
                     "is 'float', but the projections hold codes");
  file.check_refused([](Parts& p) { p.set_text(kGgufLinearKey, "b2"); },
                     "expected float, b158 or b1");
  file.check_refused([](Parts& p) { p.set_u32(kGgufActivationBitsKey, 4); },
                     "activation_bits = 4 must be 8");
  file.check_refused([](Parts& p) { p.set_u32(kGgufWeightGroupKey, 100); }, "does not divide");
  file.check_refused([](Parts& p) { p.set_u32(kGgufWeightGroupKey, 32); }, "multiple of 64");
  file.check_refused(
      [](Parts& p) {
        p.set_u32(kGgufWeightGroupKey, 128);
        p.at("blk.0.ffn_up.weight").bytes[0] ^= 1;  // the first block's scale
      },
      "scales that differ within");
  Changed floats(gguf_config("float", "llama"), GgufType::f32);
  floats.check_refused([](Parts& p) { p.set_text(kGgufLinearKey, "b158"); },
                       "the projections hold floats that are not codes times scales");
}
