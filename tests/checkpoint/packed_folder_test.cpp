// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/checkpoint/model_file.h"
#include "tests/checkpoint/small_model.h"
#include "tests/support/catch.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

const std::vector<std::int32_t> kTokens = {1, 2, 3, 0, 2, 1};
// The same content; the first is from before tensors began at a cache line.
const fs::path kFixtures = fs::path(BITNET_SOURCE_DIR) / "tests" / "fixtures" / "checkpoint",
               kUnalignedFixture = kFixtures / "packed_format_1.safetensors",
               kFixture = kFixtures / "packed_format_1_aligned.safetensors";

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(folder)) names.insert(item.path().filename());
  return names;
}

std::vector<std::uint8_t> bytes_of(const SafetensorsFile& file, const std::string& name) {
  const auto* entry = file.find(name);
  REQUIRE(entry != nullptr);
  return {entry->bytes.begin(), entry->bytes.end()};
}

// As /proc/self/maps says.
bool is_mapped_from_a_file(const std::byte* data) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    char dash = 0;
    std::uintptr_t first = 0, end = 0;
    std::istringstream(line) >> std::hex >> first >> dash >> end;
    const auto place = reinterpret_cast<std::uintptr_t>(data);
    if (place >= first && place < end) return line.find("model.safetensors") != std::string::npos;
  }
  return false;
}

// The model of the fixture, written today.
std::string packed_today() {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", FloatDtype::f32, false);
  return read_text_file(folder / "p" / "model.safetensors");
}

}  // namespace

TEST_CASE("a packed model computes the latent model's logits, bit for bit") {
  const std::string linear = GENERATE("b158", "b1");
  const std::int64_t group = GENERATE(0, 64);
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  ModelConfig config = test::small_config(linear);
  config.weight_group_size = group;
  const auto model = test::make_small_model(*backend, config);
  const PackedReport report = save_packed(*model, folder / "p", FloatDtype::f32, false);

  CHECK(names_in(folder / "p") ==
        std::set<std::string>{"config.json", "generation_config.json", "model.safetensors"});
  CHECK(names_in(folder.path()) == std::set<std::string>{"p"});
  const auto packed = load_model(*backend, folder / "p");
  CHECK(packed->parameters().form() == WeightForm::packed);
  CHECK(test::logits_of(*packed, kTokens, 2) == test::logits_of(*model, kTokens, 2));

  CHECK(report.packed_bytes == fs::file_size(folder / "p" / "model.safetensors"));
  CHECK(report.weights == model->parameters().count());
  CHECK(report.codes.total() == report.projection_weights);
  CHECK(report.codes.invalid == 0);
  if (linear == "b1") CHECK(report.codes.zero == 0);
  // 2 bits a weight and one fp32 scale a matrix (14 here) or a group.
  const double scales = group == 0 ? 14.0 / double(report.projection_weights) : 1.0 / 64;
  CHECK(std::abs(report.bits_per_projection_weight - (2 + 32 * scales)) <= 1e-12);
  CHECK(report.bits_per_weight ==
        8.0 * double(report.packed_bytes) / double(model->parameters().count()));
}

TEST_CASE("a packed file is Hugging Face's layout") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", FloatDtype::f32, false);
  const SafetensorsFile file(folder / "p" / "model.safetensors");
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const Parameter& parameter = model->parameters().at(name);
  CHECK(file.find(name)->dtype == "U8");
  CHECK(file.find(name)->shape == std::vector<std::int64_t>{16, 64});
  CHECK(file.find(name + "_scale")->dtype == "F32");
  CHECK(file.find(name + "_scale")->shape == std::vector<std::int64_t>{1});
  CHECK(file.find("lm_head.weight") == nullptr);
  CHECK(file.metadata().at("format") == "pt");

  // Rows in four quarters, quarter i in bits 2i and 2i + 1, code = trit + 1.
  const std::vector<float> weights = test::floats_of(*backend, parameter.value);
  const float scale = test::floats_of(*backend, parameter.weight_scale)[0];
  const std::vector<std::uint8_t> packed = bytes_of(file, name);
  bool same = true;
  for (std::size_t row = 0; row < 64; ++row) {
    for (std::size_t column = 0; column < 64; ++column) {
      const int code = packed[(row % 16) * 64 + column] >> (2 * (row / 16)) & 3;
      const double trit = std::nearbyint(double(weights[row * 64 + column]) / scale);
      same = same && code - 1 == std::max(-1.0, std::min(1.0, trit));
    }
  }
  CHECK(same);
  const json config = json::parse(read_text_file(folder / "p" / "config.json"));
  CHECK(config["quantization_config"]["quantization_mode"] == "offline");
  CHECK(config["quantization_config"]["linear_class"] == "autobitlinear");
  CHECK(json::parse(read_text_file(folder / "p" / "generation_config.json")) ==
        json{{"bos_token_id", 0}, {"eos_token_id", 0}});
}

TEST_CASE("scales and codes are copied, never computed again") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "a", FloatDtype::f32, false);
  const auto packed = load_model(*backend, folder / "a");
  save_packed(*packed, folder / "b", FloatDtype::f32, false);
  CHECK(read_text_file(folder / "a" / "model.safetensors") ==
        read_text_file(folder / "b" / "model.safetensors"));
}

TEST_CASE("bf16 halves all but codes and scales") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", FloatDtype::bf16, false);
  const SafetensorsFile file(folder / "p" / "model.safetensors");
  CHECK(file.find("model.embed_tokens.weight")->dtype == "BF16");
  CHECK(file.find("model.norm.weight")->dtype == "BF16");
  CHECK(file.find("model.layers.0.self_attn.q_proj.weight_scale")->dtype == "F32");
  // The weights are multiples of 1/32 below 2: exact in bf16.
  const auto packed = load_model(*backend, folder / "p");
  CHECK(test::logits_of(*packed, kTokens, 2) == test::logits_of(*model, kTokens, 2));
}

TEST_CASE("a packed model's weights are used where they lie in the file") {
  const test::TemporaryFolder folder;
  const FloatDtype dtype = GENERATE(FloatDtype::f32, FloatDtype::bf16);
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", dtype, false);
  const auto packed = load_model(*backend, folder / "p");
  fs::remove_all(folder / "p");  // the mapping stays
  for (const Parameter& p : packed->parameters().all()) {
    CAPTURE(p.spec.name);
    const bool table = p.spec.role == TensorRole::embedding;
    if (table) CHECK((p.value.dtype() == DType::bf16) == (dtype == FloatDtype::bf16));
    if (table || p.packed) {
      CHECK(is_mapped_from_a_file(table ? p.value.view().raw() : p.packed.view().raw()));
    }
  }
  CHECK(test::logits_of(*packed, kTokens, 2) == test::logits_of(*model, kTokens, 2));
}

TEST_CASE("a packed file with misaligned tensors computes the same") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", FloatDtype::f32, false);
  std::string content = read_text_file(folder / "p" / "model.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, content.data(), sizeof length);
  content.insert(8 + length, 1, ' ');  // the header's padding grows by a byte
  ++length;
  std::memcpy(content.data(), &length, sizeof length);
  write_file(folder / "p" / "model.safetensors", content);
  const auto packed = load_model(*backend, folder / "p");
  CHECK(test::logits_of(*packed, kTokens, 2) == test::logits_of(*model, kTokens, 2));
}

TEST_CASE("a float model has nothing to pack") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("float", 1));
  CHECK_THROWS_AS(save_packed(*model, folder / "p", FloatDtype::f32, false), UsageError);
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("a packed folder replaces another only by force, and nothing else ever") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  const fs::path target = folder / "a" / "p";
  save_packed(*model, target, FloatDtype::f32, false);
  CHECK_THROWS_AS(save_packed(*model, target, FloatDtype::bf16, false), Error);
  save_packed(*model, target / "", FloatDtype::bf16, true);
  CHECK(SafetensorsFile(target / "model.safetensors").find("model.norm.weight")->dtype == "BF16");
  CHECK(names_in(folder / "a") == std::set<std::string>{"p"});

  write_file(target / "notes.txt", "mine");
  CHECK_THROWS_AS(save_packed(*model, target, FloatDtype::f32, true), Error);
  CHECK(fs::exists(target / "notes.txt"));
  save_latent(*model, folder / "latent");
  CHECK_THROWS_AS(save_packed(*model, folder / "latent", FloatDtype::f32, true), Error);
  CHECK(resolve_model(folder / "latent").form == WeightForm::latent);
  make_folders(folder / "odd" / "model.safetensors");  // what cannot be read may hold anything
  CHECK_THROWS_AS(save_packed(*model, folder / "odd", FloatDtype::f32, true), Error);
  CHECK(fs::exists(folder / "odd" / "model.safetensors"));
  write_file(folder / "file", "");
  CHECK_THROWS_AS(save_packed(*model, folder / "file", FloatDtype::f32, true), Error);
  make_folders(folder / "empty");
  CHECK_NOTHROW(save_packed(*model, folder / "empty", FloatDtype::f32, false));
}

TEST_CASE("packing onto a full disk leaves the old folder and no rubbish") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", FloatDtype::f32, false);
  const std::string before = read_text_file(folder / "p" / "model.safetensors");
  {
    const test::FileSizeLimit limit(6000);
    CHECK_THROWS_AS(save_packed(*model, folder / "p", FloatDtype::bf16, true), Error);
  }
  CHECK(read_text_file(folder / "p" / "model.safetensors") == before);
  CHECK(names_in(folder.path()) == std::set<std::string>{"p"});
}

TEST_CASE("a packed folder gets its name only when it is verified") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  const auto refuse = [](const fs::path&) { throw Error("not equal"); };
  CHECK_THROWS_WITH(save_packed(*model, folder / "p", FloatDtype::f32, false, {}, refuse),
                    "not equal");
  CHECK(names_in(folder.path()).empty());

  save_packed(*model, folder / "p", FloatDtype::f32, false, {{"note", "first"}});
  CHECK(resolve_model(folder / "p").metadata.at("note") == "first");
  CHECK_THROWS_AS(save_packed(*model, folder / "p", FloatDtype::f32, true, {}, refuse), Error);
  CHECK(resolve_model(folder / "p").metadata.at("note") == "first");

  const auto inspect = [&](const fs::path& written) {
    CHECK(resolve_model(written).metadata.at("note") == "second");
    CHECK(resolve_model(folder / "p").metadata.at("note") == "first");
  };
  save_packed(*model, folder / "p", FloatDtype::f32, true, {{"note", "second"}}, inspect);
  CHECK(resolve_model(folder / "p").metadata.at("note") == "second");
  CHECK(names_in(folder.path()) == std::set<std::string>{"p"});
}

TEST_CASE("what appears under a packed folder's name while it is written is not replaced") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  const auto appear = [&](const fs::path&) {
    make_folders(folder / "p");
    write_file(folder / "p" / "notes.txt", "mine");
  };
  for (const bool force : {false, true}) {
    fs::remove_all(folder / "p");
    CHECK_THROWS_AS(save_packed(*model, folder / "p", FloatDtype::f32, force, {}, appear), Error);
    CHECK(read_text_file(folder / "p" / "notes.txt") == "mine");
    CHECK(names_in(folder.path()) == std::set<std::string>{"p"});
  }
}

TEST_CASE("what killed programs left of a packed folder is removed") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  save_packed(*model, folder / "p", FloatDtype::f32, false);
  // No process has an id above 2^22, Linux's largest; process 1 always lives.
  for (const char* name : {"p.bitnet-tmp-4194305", "p.bitnet-old-4194305", "p.bitnet-tmp-1",
                           "p.bitnet-tmp-mine", "q.bitnet-tmp-4194305", "p.old-4194305"})
    make_folders(folder / name);
  save_packed(*model, folder / "p", FloatDtype::f32, true);
  CHECK(names_in(folder.path()) == std::set<std::string>{"p", "p.bitnet-tmp-1", "p.bitnet-tmp-mine",
                                                         "p.old-4194305", "q.bitnet-tmp-4194305"});
}

// When the format changes: keep this fixture for the reader, and let the environment variable write
// the next one.
TEST_CASE("files of packed format 1 are read, and written byte for byte") {
  if (std::getenv("BITNET_WRITE_FIXTURES") != nullptr) {
    make_folders(kFixture.parent_path());
    write_file(kFixture, packed_today());
  }
  const auto backend = make_cpu_backend(1);
  const auto model = test::make_small_model(*backend, test::small_config("b158", 1));
  for (const fs::path& fixture : {kUnalignedFixture, kFixture}) {
    const auto loaded = load_model(*backend, fixture);
    CHECK(test::logits_of(*loaded, kTokens, 2) == test::logits_of(*model, kTokens, 2));
  }
  CHECK(packed_today() == read_text_file(kFixture));
}
