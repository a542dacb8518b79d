// SPDX-License-Identifier: MIT
// Models of ours written as GGUF and read again: the same codes, scales and logits; and what is
// refused because a reader could not hold it or would compute something else.
#include "core/convert/gguf_export.h"

#include <cmath>
#include <set>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/half.h"
#include "core/convert/verify.h"
#include "tests/convert/gguf_models.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"

using namespace bitnet;
using namespace bitnet::test;
namespace fs = std::filesystem;

namespace {

class Exported {
 public:
  explicit Exported(const ModelConfig& config)
      : backend_(make_cpu_backend(1)), source_(saved_model(*backend_, config, folder_ / "model")) {}

  Backend& backend() { return *backend_; }
  const SharedReader& source() const { return source_; }
  fs::path path() const { return folder_ / "model.gguf"; }

  SharedReader write(const GgufExportOptions& options) {
    GgufExportOptions replacing = options;
    replacing.replace = true;
    report = export_gguf(*source_, path(), replacing);
    return open_gguf(path());
  }
  // Also compares every tensor and the logits with what the options say.
  VerifyReport verified(const GgufExportOptions& options) {
    const SharedReader written = write(options);
    const SharedReader packed = source_->config().quantized() ? packed_view(source_) : source_;
    return verify_conversion(*backend_, packed, gguf_form(source_, options), written);
  }
  std::set<std::string> tensor_names() const {
    std::set<std::string> names;
    const GgufFile file(path());
    for (const GgufFile::Tensor& tensor : file.tensors()) names.insert(tensor.name);
    return names;
  }

  GgufExportReport report;

 private:
  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_;
  SharedReader source_;
};

GgufExportOptions as_type(GgufType type, const std::string& arch = "") {
  GgufExportOptions options;
  options.type = type;
  options.arch = arch;
  return options;
}

void check_refused(const ModelConfig& config, const GgufExportOptions& options,
                   const std::string& reason) {
  Exported exported(config);
  INFO(reason);
  CHECK_THROWS_AS(exported.write(options), UsageError);
  CHECK_THROWS_WITH(exported.write(options), Catch::Contains(reason));
  CHECK_FALSE(fs::exists(exported.path()));
}

// Of a model of two layers.
std::set<std::string> expected_names(bool sub_norms, bool scales, bool head) {
  std::set<std::string> names = {"token_embd.weight", "output_norm.weight"};
  if (head) names.insert("output.weight");
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    for (const std::string norm : {"attn_norm", "ffn_norm"}) names.insert(layer + norm + ".weight");
    if (sub_norms) {
      names.insert(layer + "attn_sub_norm.weight");
      names.insert(layer + "ffn_sub_norm.weight");
    }
    for (const std::string projection :
         {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
      names.insert(layer + projection + ".weight");
      if (scales) names.insert(layer + projection + ".scale");
    }
  }
  return names;
}

const GgufType kTernaryTypes[] = {GgufType::q2_0, GgufType::tq2_0, GgufType::tq1_0, GgufType::i2_s,
                                  GgufType::f16,  GgufType::bf16,  GgufType::f32};

}  // namespace

TEST_CASE("a ternary model in arch bitnet comes back from every GGUF type with its exact scales") {
  Exported exported(gguf_config());
  const SharedReader expected = packed_view(exported.source());
  for (const GgufType type : kTernaryTypes) {
    INFO(to_string(type));
    const VerifyReport report = exported.verified(as_type(type));
    CHECK(report.codes > 0);
    // f16 and bf16 round the embedding; in the others nothing is.
    const bool exact = type != GgufType::f16 && type != GgufType::bf16;
    if (exact) CHECK(report.logits.different == 0);
    CHECK((report.rounded == 0) == exact);
    CHECK(exported.tensor_names() == expected_names(true, type != GgufType::i2_s, false));

    const SharedReader read = open_gguf(exported.path());
    CHECK(read->form() == WeightForm::packed);
    CHECK(read->description() == "GGUF, arch bitnet");
    CHECK(read->warnings().empty());
    ModelConfig config = resolved(exported.source()->config()), found = resolved(read->config());
    config.initializer_range = found.initializer_range;  // which a file cannot say, and need not
    CHECK(found == config);
    const std::string scale = "model.layers.1.mlp.down_proj.weight_scale";
    CHECK(read_floats(*read, scale, 1) == read_floats(*expected, scale, 1));
  }
  CHECK(exported.report.arch == "bitnet");
  CHECK(exported.report.bytes == fs::file_size(exported.path()));
}

TEST_CASE("the default GGUF types are q2_0 for b158, i2_s for bitnet-b1.58 and q1_0 for b1") {
  Exported ternary(gguf_config());
  ternary.write({});
  CHECK(ternary.report.type == GgufType::q2_0);
  Exported relu2(gguf_config("", "bitnet-relu2"));
  CHECK(relu2.verified({}).logits.different == 0);
  CHECK(relu2.report.type == GgufType::i2_s);
  CHECK(relu2.report.arch == "bitnet-b1.58");
  CHECK(relu2.tensor_names() == expected_names(true, false, false));
  Exported binary(gguf_config("b1"));
  CHECK(binary.verified({}).logits.different == 0);
  CHECK(binary.report.type == GgufType::q1_0);
  CHECK(open_gguf(binary.path())->config().linear == "b1");
  Exported floats(gguf_config("float", "llama"));
  CHECK(floats.verified({}).logits.different == 0);
  CHECK(floats.report.type == GgufType::f32);
  CHECK(floats.report.arch == "llama");
}

TEST_CASE("scales inside GGUF blocks are rounded to fp16 once, and nothing else is") {
  ModelConfig config = gguf_config("", "bitnet-relu2");
  config.tie_word_embeddings = false;
  Exported exported(config);
  for (const GgufType type : {GgufType::q2_0, GgufType::tq2_0, GgufType::tq1_0}) {
    INFO(to_string(type));
    const VerifyReport report = exported.verified(as_type(type));
    CHECK(report.rounded == 14);                // a scale for each projection of two layers
    CHECK(report.largest_rounding <= 0x1p-11);  // half of the last of fp16's 11 bits
    CHECK(exported.tensor_names() == expected_names(true, false, true));
  }
}

TEST_CASE("a llama's rows of q and k are permuted in GGUF, and come back") {
  ModelConfig config = gguf_config("", "llama");
  Exported exported(config);
  for (const GgufType type : kTernaryTypes) {
    INFO(to_string(type));
    CHECK(exported.verified(as_type(type)).codes > 0);
    CHECK(exported.tensor_names() == expected_names(false, false, false));
    const SharedReader read = open_gguf(exported.path());
    CHECK(read->config().activation_bits == 8);
  }
  config.linear = "float";
  config.tie_word_embeddings = false;
  Exported floats(config);
  for (const GgufType type : {GgufType::f16, GgufType::bf16, GgufType::f32}) {
    INFO(to_string(type));
    CHECK((floats.verified(as_type(type)).rounded == 0) == (type == GgufType::f32));
    CHECK(floats.tensor_names() == expected_names(false, false, true));
  }
  // Heads of 64: of head 1, our row 64 + 32 * j + i is row 64 + 2 * i + j of the file.
  const auto ours =
      read_floats(*floats.source(), "model.layers.0.self_attn.q_proj.weight", 256 * 256);
  const GgufFile file(floats.path());
  const auto* theirs =
      reinterpret_cast<const float*>(file.find("blk.0.attn_q.weight")->bytes.data());
  for (const auto& [our_row, file_row] : {std::pair(64, 64), {65, 66}, {96, 65}, {127, 127}})
    CHECK(ours[static_cast<std::size_t>(our_row * 256 + 9)] == theirs[file_row * 256 + 9]);
}

TEST_CASE("heads that do not fill the hidden size are written in arch llama") {
  ModelConfig config = gguf_config("", "llama");
  config.head_dim = 32;
  config.num_attention_heads = 4;
  Exported exported(config);
  CHECK(exported.verified(as_type(GgufType::f32)).codes > 0);
  CHECK(open_gguf(exported.path())->config().head_dim == 32);
  check_refused(config, as_type(GgufType::tq2_0),
                "rows of 128 weights, and tq2_0 stores blocks of 256; choose q2_0 (blocks of 64), "
                "i2_s (blocks of 128)");
}

TEST_CASE("scales of groups of weights are kept in GGUF blocks") {
  for (const std::int64_t group : {64, 128, 256}) {
    ModelConfig config = gguf_config();
    config.weight_group_size = group;
    Exported exported(config);
    for (const GgufType type : {GgufType::q2_0, GgufType::tq2_0, GgufType::tq1_0, GgufType::f32}) {
      if (group < find_gguf_type(type)->block) continue;
      INFO(group << " " << to_string(type));
      const VerifyReport report = exported.verified(as_type(type));
      CHECK(report.codes > 0);
      CHECK(open_gguf(exported.path())->config().weight_group_size == group);
      CHECK((report.rounded == 0) == (type == GgufType::f32));
      CHECK(exported.tensor_names() == expected_names(true, false, false));
    }
  }
  ModelConfig config = gguf_config();
  config.weight_group_size = 64;
  check_refused(config, as_type(GgufType::tq1_0),
                "a scale for each 64 weights, and tq1_0 one for each 256; choose q2_0");
  check_refused(config, as_type(GgufType::i2_s), "i2_s one for a tensor; choose q2_0");
}

TEST_CASE(
    "a scale out of fp16's precision is refused with advice, not rounded to what is left of it") {
  ModelConfig config = gguf_config("", "llama");
  for (const double range : {3e-5, 1e-9}) {  // mean |W| is 0.8 of it: subnormal in fp16, then 0
    config.initializer_range = range;
    check_refused(config, as_type(GgufType::q2_0),
                  "in fp16, whose precision it is out of; choose i2_s or f32");
    Exported exported(config);
    CHECK(exported.verified(as_type(GgufType::i2_s)).rounded == 0);
  }
}

TEST_CASE("an export removes what killed ones left of the same file, and nothing else") {
  Exported exported(gguf_config());
  const fs::path folder = exported.path().parent_path();
  const std::string name = exported.path().filename().string();
  // 4194305 is above every process id that Linux gives; process 1 lives.
  const std::string left = name + ".export-tmp-4194305";
  const std::string stay[] = {name + ".export-tmp-1", name + ".export-tmp-x", "y" + left};
  for (const std::string& file : {left, left + ".tmp-4194305", stay[0], stay[1], stay[2]})
    write_file(folder / file, "");
  exported.write({});
  CHECK_FALSE(fs::exists(folder / left));
  CHECK_FALSE(fs::exists(folder / (left + ".tmp-4194305")));
  for (const std::string& file : stay) CHECK(fs::exists(folder / file));
}

TEST_CASE("what appears under an export's name while it runs is not replaced") {
  const Exported exported(gguf_config());
  GgufExportOptions options;
  options.verify = [&](const fs::path&) { write_file(exported.path(), "a text of mine"); };
  const auto write = [&] { export_gguf(*exported.source(), exported.path(), options); };
  CHECK_THROWS_WITH(write(), Catch::Contains("already exists"));
  CHECK(read_text_file(exported.path()) == "a text of mine");
  fs::remove(exported.path());
  options.replace = true;
  CHECK_THROWS_WITH(write(), Catch::Contains("it is no GGUF file"));
  CHECK(read_text_file(exported.path()) == "a text of mine");
}

TEST_CASE("norms without gains become GGUF norms with gains of 1, the same function") {
  Exported exported(gguf_config("", "bitnet-faq"));
  const VerifyReport report = exported.verified({});
  CHECK(report.logits.different == 0);
  CHECK(exported.tensor_names() == expected_names(true, true, false));
  const GgufFile file(exported.path());
  CHECK(file.find("blk.1.ffn_sub_norm.weight")->columns() == 512);
}

TEST_CASE("a packed model goes to GGUF and back with identical codes and scales") {
  const auto backend = make_cpu_backend(1);
  const TemporaryFolder folder;
  TinyModel model(*backend, gguf_config(), 4);
  save_packed(model, folder / "packed", FloatDtype::bf16, false);
  const SharedReader source = open_native(folder / "packed");
  export_gguf(*source, folder / "a.gguf", {});
  const SharedReader written = open_gguf(folder / "a.gguf");
  CHECK(verify_conversion(*backend, source, source, written).rounded == 0);
  // fp16 does not hold every bf16 value: the embedding is stored as what holds them all.
  const GgufFile file(folder / "a.gguf");
  const GgufType type = file.find("token_embd.weight")->type;
  CHECK((type == GgufType::bf16 || type == GgufType::f16));
  export_gguf(*written, folder / "b.gguf", {});
  GgufParts a(folder / "a.gguf"), b(folder / "b.gguf");
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    CHECK(a.tensors[i].name == b.tensors[i].name);
    CHECK(a.tensors[i].bytes == b.tensors[i].bytes);
  }
}

TEST_CASE("a GGUF export is the same bytes every time, and replaces a file only when told to") {
  Exported exported(gguf_config());
  exported.write({});
  const std::string first = read_text_file(exported.path(), 1 << 30);
  exported.write({});
  CHECK(read_text_file(exported.path(), 1 << 30) == first);
  CHECK_THROWS_WITH(export_gguf(*exported.source(), exported.path(), {}),
                    Catch::Contains("already exists"));
  GgufExportOptions failing = as_type(GgufType::f32);
  failing.replace = true;
  failing.verify = [](const fs::path& written) {
    CHECK(fs::exists(written));
    throw Error("verification failed");
  };
  CHECK_THROWS_WITH(export_gguf(*exported.source(), exported.path(), failing),
                    "verification failed");
  CHECK(read_text_file(exported.path(), 1 << 30) == first);
  CHECK(std::distance(fs::directory_iterator(exported.path().parent_path()),
                      fs::directory_iterator{}) == 2);  // the model's folder and the file
}

TEST_CASE("a GGUF export replaces no file of another kind, not even when told to") {
  Exported exported(gguf_config());
  GgufExportOptions options;
  options.replace = true;
  const fs::path weights = exported.source()->path();
  const std::string before = read_text_file(weights, 1 << 30);
  CHECK_THROWS_WITH(export_gguf(*exported.source(), weights, options),
                    Catch::Contains("it is no GGUF file"));
  CHECK(read_text_file(weights, 1 << 30) == before);
  write_file(exported.path(), "");
  CHECK_NOTHROW(export_gguf(*exported.source(), exported.path(), options));
}

TEST_CASE("an export that a GGUF reader would silently compute wrongly is refused") {
  check_refused(gguf_config("", "bitnet-relu2"), as_type(GgufType::q2_0, "bitnet"),
                "readers of arch bitnet compute silu where the model has relu2");
  check_refused(gguf_config("", "bitnet-relu2"), as_type(GgufType::q2_0, "bitnet"),
                "choose --gguf-arch bitnet-b1.58");
  check_refused(gguf_config(), as_type(GgufType::i2_s, "bitnet-b1.58"),
                "choose --gguf-arch bitnet, or write it all the same with --force");
  GgufExportOptions forced = as_type(GgufType::q2_0, "bitnet");
  forced.allow_differences = true;
  Exported exported(gguf_config("", "bitnet-relu2"));
  CHECK(exported.verified(forced).logits.different == 0);  // ours reads the key
  CHECK(GgufFile(exported.path()).text("bitnet.hidden_activation") == "relu2");
}

TEST_CASE("an export that no GGUF architecture can hold is refused") {
  check_refused(gguf_config("", "bitnet-b1"), {}, "the model has LayerNorms");
  ModelConfig config = gguf_config();
  config.gated_mlp = false;
  check_refused(config, {}, "no gate");
  check_refused(gguf_config(), as_type(GgufType::q2_0, "llama"),
                "arch llama computes without sub-norms, and the model has them");
  check_refused(gguf_config("", "llama"), as_type(GgufType::q2_0, "bitnet"),
                "arch bitnet computes with sub-norms, and the model has none");
  config = gguf_config();
  config.tie_word_embeddings = false;
  check_refused(config, {}, "arch bitnet takes its output head from the embedding");
  config = gguf_config();
  config.head_dim = 32;
  check_refused(config, {}, "4 heads of 32 for 256");
  check_refused(gguf_config(), as_type(GgufType::q2_0, "gpt2"), "expected one of: bitnet, ");
}

TEST_CASE("a GGUF type that cannot hold the weights is refused with one that can") {
  check_refused(gguf_config(), as_type(GgufType::q1_0), "choose q2_0");
  check_refused(gguf_config("float"), as_type(GgufType::q2_0), "choose f16, bf16 or f32");
  check_refused(gguf_config(), as_type(GgufType::q8_0), "models are not written as q8_0");
  ModelConfig config = gguf_config();
  config.intermediate_size = 320;
  check_refused(config, as_type(GgufType::tq2_0),
                "rows of 320 weights, and tq2_0 stores blocks of 256; choose q2_0 (blocks of 64)");
  check_refused(config, as_type(GgufType::i2_s), "choose q2_0 (blocks of 64)");
  config = gguf_config("b1");
  config.intermediate_size = 320;
  Exported exported(config);  // q1_0's blocks of 128 do not fit either
  CHECK(exported.verified({}).codes > 0);
  CHECK(exported.report.type == GgufType::q2_0);
}

TEST_CASE("byte models are written with an rwkv or a gpt2 vocabulary") {
  Exported exported(gguf_config());
  GgufExportOptions options;
  CHECK(exported.write(options)->tokenizer() == byte_tokenizer());
  {
    const GgufFile file(exported.path());
    CHECK(file.text("tokenizer.ggml.model") == "rwkv");
    const auto tokens = file.texts("tokenizer.ggml.tokens");
    REQUIRE(tokens.size() == 256);
    CHECK(tokens[0] == "\\x00");
    CHECK(tokens[0xab] == "\\xab");
    CHECK(file.integer("tokenizer.ggml.eos_token_id", 0, 0) == 0);
    CHECK_FALSE(file.has("tokenizer.ggml.merges"));
  }
  options.byte_tokens = GgufByteTokens::gpt2;
  CHECK(exported.write(options)->tokenizer() == byte_tokenizer());
  const GgufFile file(exported.path());
  CHECK(file.text("tokenizer.ggml.pre") == "qwen2");
  CHECK(file.texts("tokenizer.ggml.merges").empty());
  CHECK_FALSE(file.boolean("tokenizer.ggml.add_bos_token"));
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  CHECK(tokens[0] == "\u0100");
  CHECK(tokens['A'] == "A");
  CHECK(tokens[' '] == "\u0120");
  CHECK(std::set<std::string_view>(tokens.begin(), tokens.end()).size() == 256);

  ModelConfig config = gguf_config();
  config.vocab_size = 260;
  check_refused(config, {}, "choose --gguf-tokenizer gpt2");
  Exported padded(config);
  const SharedReader read = padded.write(options);
  CHECK(read->tokenizer() == byte_tokenizer());
  CHECK(read->config().vocab_size == 260);
  config.vocab_size = 100;
  check_refused(config, {}, "has 256 tokens, and the model only 100 token ids");
}
