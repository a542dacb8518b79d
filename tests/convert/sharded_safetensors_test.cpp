// SPDX-License-Identifier: MIT
#include "core/convert/sharded_safetensors.h"

#include <algorithm>
#include <functional>

#include "core/base/error.h"
#include "tests/convert/hugging_face_files.h"
#include "tests/support/catch.h"
#include "tests/support/contains.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
using nlohmann::ordered_json;
using test::contains;
using test::HuggingFaceFiles;
namespace fs = std::filesystem;

namespace {

HuggingFaceFiles four_tensors() {
  HuggingFaceFiles files;
  for (const char* name : {"a", "b", "c", "d"})
    files.set_floats(name, {5}, {1, 2, 3, 4, static_cast<float>(name[0])}, "F32");
  return files;
}

std::string refusal(const fs::path& folder) {
  try {
    ShardedSafetensors{folder};
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

void edit_index(const fs::path& folder, const std::function<void(ordered_json&)>& edit) {
  const fs::path file = folder / "model.safetensors.index.json";
  ordered_json index = ordered_json::parse(read_text_file(file));
  edit(index);
  write_file(file, index.dump());
}

}  // namespace

TEST_CASE("tensors beyond a size go to several files, whose index leads back to all of them") {
  const test::TemporaryFolder folder;
  const HuggingFaceFiles files = four_tensors();  // 20 bytes each
  write_sharded(folder.path(), files.to_write(), {}, 40);
  CHECK(fs::exists(folder / "model-00001-of-00002.safetensors"));
  CHECK(fs::exists(folder / "model-00002-of-00002.safetensors"));
  CHECK_FALSE(fs::exists(folder / "model.safetensors"));
  const auto index = ordered_json::parse(read_text_file(folder / "model.safetensors.index.json"));
  CHECK(index["metadata"]["total_size"] == 80);
  CHECK(index["weight_map"]["c"] == "model-00002-of-00002.safetensors");

  const ShardedSafetensors read(folder.path());
  CHECK(read.file_count() == 2);
  REQUIRE(read.tensors().size() == 4);
  for (const auto& [name, tensor] : read.tensors())
    CHECK(std::ranges::equal(tensor.entry->bytes, files.tensors.at(name).bytes));
  CHECK(read.find("e") == nullptr);
}

TEST_CASE("few tensors stay in one file, large ones get one each") {
  const test::TemporaryFolder folder;
  const HuggingFaceFiles files = four_tensors();
  make_folders(folder / "one");
  write_sharded(folder / "one", files.to_write(), {}, 80);
  CHECK(ShardedSafetensors(folder / "one").file_count() == 1);
  make_folders(folder / "four");
  write_sharded(folder / "four", files.to_write(), {}, 7);
  CHECK(ShardedSafetensors(folder / "four").file_count() == 4);
}

TEST_CASE("an index that disagrees with its files is refused") {
  const test::TemporaryFolder folder;
  const auto fresh = [&] {
    fs::remove_all(folder.path());
    make_folders(folder.path());
    write_sharded(folder.path(), four_tensors().to_write(), {}, 40);
  };
  const std::string first = "model-00001-of-00002.safetensors",
                    second = "model-00002-of-00002.safetensors";
  fresh();
  fs::remove(folder / second);
  contains(refusal(folder.path()), "names the file '" + second + "', which is not there");
  fresh();
  edit_index(folder.path(), [](ordered_json& index) { index["weight_map"].erase("b"); });
  contains(refusal(folder.path()), "tensor 'b' is not in weight_map");
  fresh();
  edit_index(folder.path(), [&](ordered_json& index) { index["weight_map"]["e"] = first; });
  contains(refusal(folder.path()), "tensor 'e' is not in");
  fresh();
  edit_index(folder.path(), [&](ordered_json& index) { index["weight_map"]["a"] = second; });
  contains(refusal(folder.path()), "tensor 'a' is here, but");
  fresh();  // in both files
  fs::copy_file(folder / first, folder / second, fs::copy_options::overwrite_existing);
  contains(refusal(folder.path()), "is here, but");
  for (const char* name : {"../model.safetensors", "/etc/passwd", "", "..", "a/b"}) {
    fresh();
    edit_index(folder.path(), [&](ordered_json& index) { index["weight_map"]["a"] = name; });
    contains(refusal(folder.path()), "expected the name of a file in the same folder");
  }
  fresh();
  edit_index(folder.path(), [](ordered_json& index) { index.erase("weight_map"); });
  contains(refusal(folder.path()), "no object 'weight_map'");
  fs::remove_all(folder.path());
  make_folders(folder.path());
  contains(refusal(folder.path()), "holds no model");
}

TEST_CASE("sizes are read as Hugging Face writes them") {
  CHECK(parse_byte_size("5GB") == 5'000'000'000);
  CHECK(parse_byte_size("300MB") == 300'000'000);
  CHECK(parse_byte_size("4GiB") == std::uint64_t{4} << 30);
  CHECK(parse_byte_size("12") == 12);
  for (const char* wrong : {"", "GB", "0", "-1", "1.5GB", "5 GB", "5TB", "99999999999GB"})
    CHECK_THROWS_AS(parse_byte_size(wrong), UsageError);
}
