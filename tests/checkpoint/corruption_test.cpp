// SPDX-License-Identifier: MIT
// Every reader survives truncation at each length and a flipped byte at each offset: it loads or it
// throws an Error, and nothing else (the sanitizers run these too).
#include <fcntl.h>
#include <unistd.h>

#include <zlib.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/checkpoint/inspect.h"
#include "core/checkpoint/model_file.h"
#include "core/checkpoint/run_folder.h"
#include "core/checkpoint/training_state.h"
#include "core/data/byte_source.h"
#include "core/train/metrics_log.h"
#include "core/train/run_config.h"
#include "tests/checkpoint/small_model.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

// Changes a file in place, cheaply enough to do it at every byte.
class FileInPlace {
 public:
  explicit FileInPlace(const fs::path& path)
      : bytes_(read_text_file(path)), descriptor_(::open(path.c_str(), O_RDWR)) {
    REQUIRE(descriptor_ >= 0);
  }
  ~FileInPlace() { ::close(descriptor_); }
  FileInPlace(const FileInPlace&) = delete;
  FileInPlace& operator=(const FileInPlace&) = delete;

  std::size_t size() const { return bytes_.size(); }
  void flip(std::size_t offset, char mask) {
    const char changed = static_cast<char>(bytes_[offset] ^ mask);
    put(changed, offset);
  }
  void restore(std::size_t offset) { put(bytes_[offset], offset); }
  void truncate(std::size_t length) {
    if (::ftruncate(descriptor_, static_cast<off_t>(length)) != 0)
      throw std::runtime_error("ftruncate");
  }

 private:
  void put(char byte, std::size_t offset) {
    if (::pwrite(descriptor_, &byte, 1, static_cast<off_t>(offset)) != 1)
      throw std::runtime_error("pwrite");
  }

  std::string bytes_;
  int descriptor_;
};

bool throws_error(const std::function<void()>& read) {
  try {
    read();
  } catch (const Error&) {
    return true;  // any other exception fails the test
  }
  return false;
}

// What is special about a file. From `data` on are tensors, for whose bytes one kind of flip is
// enough, at one offset in `stride`. Below `whole` bytes it is incomplete.
struct Damage {
  std::size_t data = SIZE_MAX, stride = 1, whole = SIZE_MAX;
};

// Reads the file after every flip, and after every truncation: the incomplete file must be refused.
void damage(const fs::path& path, const std::function<void()>& read, const Damage& how = {}) {
  std::size_t refused_flips = 0, accepted_truncations = 0;
  FileInPlace file(path);
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < file.size(); i += i < how.data ? 1 : how.stride) places.push_back(i);
  for (const std::size_t offset : places) {
    for (const char mask : {'\xff', '\x01'}) {
      if (mask == '\x01' && offset >= how.data) continue;
      file.flip(offset, mask);
      refused_flips += throws_error(read) ? 1 : 0;
    }
    file.restore(offset);
  }
  CHECK(!throws_error(read));
  for (auto length = places.rbegin(); length != places.rend(); ++length) {
    file.truncate(*length);
    accepted_truncations += !throws_error(read) && *length < how.whole ? 1 : 0;
  }
  CHECK(refused_flips > 0);
  CHECK(accepted_truncations == 0);
}

std::size_t header_bytes(const fs::path& path) {
  const SafetensorsFile file(path);
  return static_cast<std::size_t>(file.entries().front().offset);
}

// As small as the kernels allow: 74 KB latent.
ModelConfig smallest_config() {
  ModelConfig config = test::small_config("b158", 1);
  config.vocab_size = 2;
  config.gated_mlp = false;
  config.norm_gain = false;
  config.max_position_embeddings = 2;
  return config;
}

struct Checkpoint {
  test::TemporaryFolder folder;
  std::unique_ptr<Backend> backend = make_cpu_backend(1);
  std::unique_ptr<Transformer> model = test::make_small_model(*backend, smallest_config());
  fs::path latent = folder / "latent", packed = folder / "packed";
  Checkpoint() {
    save_latent(*model, latent);
    save_packed(*model, packed, FloatDtype::bf16, false);
  }
};

struct TrainingCheckpoint : Checkpoint {
  std::vector<Tensor> first, second;
  TrainingCheckpoint() {
    for (const Parameter& p : model->parameters().all()) {
      first.push_back(backend->make_tensor(DType::f32, p.spec.shape));
      second.push_back(backend->make_tensor(DType::f32, p.spec.shape));
    }
    save_training_state(*backend, latent,
                        {.step = 12, .best_bits_per_byte = 1.5, .version = "1", .device = "cpu"},
                        model->parameters(), first, second);
  }
};

// The fp32 files, whose tensors are long: model.safetensors and optimizer.safetensors.
void damage_training_files(std::size_t stride) {
  TrainingCheckpoint c;
  write_file(c.latent / "COMPLETE", "");
  const fs::path model = c.latent / "model.safetensors";
  const fs::path optimizer = c.latent / "optimizer.safetensors";
  damage(
      optimizer,
      [&] { load_training_state(*c.backend, c.latent, c.model->parameters(), c.first, c.second); },
      {.data = header_bytes(optimizer), .stride = stride});
  damage(model, [&] { load_model(*c.backend, c.latent); },
         {.data = header_bytes(model), .stride = stride});
}

}  // namespace

TEST_CASE("a damaged packed model file loads or is refused") {
  Checkpoint c;
  damage(c.packed / "model.safetensors", [&] { load_model(*c.backend, c.packed); });
}

TEST_CASE("what passes the checks after damage can be run and inspected") {
  Checkpoint c;
  for (const fs::path& folder : {c.latent, c.packed}) {
    FileInPlace file(folder / "model.safetensors");
    for (std::size_t offset = 0; offset < file.size(); offset += file.size() / 97) {
      file.flip(offset, '\xff');
      throws_error([&] { test::logits_of(*load_model(*c.backend, folder), {1, 0}, 1); });
      throws_error([&] { inspect_file(folder); });
      file.restore(offset);
    }
  }
}

TEST_CASE("a damaged config.json of a model is refused or used") {
  Checkpoint c;
  const fs::path file = c.latent / "model.safetensors";
  {  // without the copy in the metadata
    const SafetensorsFile whole(file);
    std::vector<TensorToWrite> tensors;
    for (const auto& e : whole.entries()) {
      tensors.push_back(
          {.name = e.name, .dtype = e.dtype, .shape = e.shape, .bytes = e.bytes.data()});
    }
    write_safetensors(file, tensors, {});
  }
  const fs::path config = c.latent / "config.json";
  // Only the final line feed may be missing.
  damage(config, [&] { resolve_model(c.latent); }, {.whole = fs::file_size(config) - 1});
}

TEST_CASE("a damaged config.json of a run is refused or used") {
  const test::TemporaryFolder folder;
  RunConfig config;
  config.data.path = "data/enwik8";
  const fs::path file = folder / "config.json";
  write_file(file, write_run_config(config));
  damage(file, [&] { read_run_config(read_text_file(file, kMaxConfigBytes), file.string()); },
         {.whole = fs::file_size(file) - 1});
}

TEST_CASE("damaged latent weights and moments load or are refused") { damage_training_files(11); }

TEST_CASE("each byte of latent weights and moments may be damaged", "[slow]") {
  damage_training_files(1);
}

TEST_CASE("a damaged trainer_state.json is refused or used") {
  TrainingCheckpoint c;
  const fs::path file = c.latent / "trainer_state.json";
  damage(file, [&] { read_training_state(c.latent); }, {.whole = fs::file_size(file) - 1});
}

TEST_CASE("a damaged metrics.jsonl keeps the lines that are whole") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.jsonl";
  const std::string whole = to_json_line(SampleMetrics{1, "a", "b"}) + "\n" +
                            to_json_line(SampleMetrics{2, "c", "d"}) + "\n";
  const auto resume = [&](const std::string& damaged) {
    write_file(path, damaged);
    { MetricsLog log(path, 2); }
    std::istringstream lines(read_text_file(path));
    std::size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) CHECK(json::parse(line).is_object());
    return count;
  };
  CHECK(resume(whole) == 2);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0xff);  // no longer UTF-8
    CHECK(resume(damaged) <= 1);
    damaged[i] = static_cast<char>(whole[i] ^ 0x01);
    CHECK(resume(damaged) <= 2);
    CHECK(resume(whole.substr(0, i)) == (i > whole.size() / 2 - 1 ? 1 : 0));
  }
}

TEST_CASE("a damaged text file 'latest' leads to a complete checkpoint or is refused") {
  Checkpoint c;
  const fs::path run = c.folder / "run";
  for (const int step : {1, 2}) {
    const fs::path checkpoint = run / ("checkpoint-" + std::to_string(step));
    make_folders(run);
    fs::copy(c.packed, checkpoint);
    write_file(checkpoint / "COMPLETE", "");
  }
  const fs::path latest = run / "latest";
  write_file(latest, "checkpoint-1\n");
  CHECK(find_model_file(run) == run / "checkpoint-1" / "model.safetensors");
  damage(latest, [&] { resolve_model(latest); }, {.whole = fs::file_size(latest) - 1});
  write_file(latest, "checkpoint-1\n");
  FileInPlace file(latest);
  const auto found = [&] { return fs::exists(find_model_file(run)); };
  for (std::size_t i = 0; i < file.size(); ++i) {
    file.flip(i, '\xff');
    CHECK(found());  // the highest complete checkpoint counts
    file.restore(i);
  }
  file.truncate(5);
  CHECK(found());
}

TEST_CASE("damaged gzip data is refused, or whole but for the header") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "text.gz";
  std::string text;
  for (int i = 0; i < 100; ++i) text += "line " + std::to_string(i * i) + "\n";
  const gzFile gzip = gzopen(path.c_str(), "wb");
  REQUIRE(gzip != nullptr);
  CHECK(gzwrite(gzip, text.data(), static_cast<unsigned>(text.size())) == int(text.size()));
  REQUIRE(gzclose(gzip) == Z_OK);
  damage(path, [&] {
    const ByteSource source(path);
    CHECK(std::string(source.bytes().begin(), source.bytes().end()) == text);
  });
}
