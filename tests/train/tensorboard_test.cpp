// SPDX-License-Identifier: MIT
#include "core/train/tensorboard.h"

#include "core/base/error.h"
#include "core/base/file.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

namespace bitnet {
namespace {

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

TEST_CASE("crc32c of the check string is 0xe3069283") {
  CHECK(tensorboard::crc32c("123456789") == 0xe3069283u);
  CHECK(tensorboard::crc32c("") == 0u);
}

TEST_CASE("event records are byte for byte TensorBoard's") {
  CHECK(hex(tensorboard::version_record(1700000000.0)) ==
        "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d");
  const Scalar loss[] = {{"train/loss", 2.5}};
  CHECK(hex(tensorboard::scalars_record(1700000001.0, 100, loss)) ==
        "200000000000000029eda9500900004040fc54d94110642a130a110a0a747261696e2f6c6f73731500002040"
        "7fc0c6fd");
}

TEST_CASE("a restart record is an event with a session log of status START") {
  // 1: wall time, 2: step 300 (varint ac 02), 7: two bytes {1: 1}
  CHECK(hex(tensorboard::restart_record(1700000000.0, 300)).substr(24, 32) ==
        "0900000040fc54d94110ac023a020801");
}

TEST_CASE("an event file starts with the version, and on a resume with a restart") {
  const test::TemporaryFolder folder;
  const std::int64_t first_step = GENERATE(1, 21);
  TensorBoardWriter writer(folder / "tb", first_step);
  const Scalar scalars[] = {{"a", 1.0}, {"b", 2.0}};
  writer.write(first_step, scalars);

  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "tb"))
    files.push_back(entry.path());
  REQUIRE(files.size() == 1);
  CHECK(files[0].filename().string().starts_with("events.out.tfevents."));
  const std::string content = read_text_file(files[0]);
  const std::size_t version = tensorboard::version_record(0).size(),
                    restart =
                        first_step > 1 ? tensorboard::restart_record(1, first_step).size() : 0,
                    values = tensorboard::scalars_record(1, first_step, scalars).size();
  CHECK(content.size() == version + restart + values);
  CHECK(content.find("brain.Event:2") != std::string::npos);
}

TEST_CASE("two writers in one folder never share a file") {
  const test::TemporaryFolder folder;
  const TensorBoardWriter first(folder.path(), 1), second(folder.path(), 1);
  const auto begin = std::filesystem::directory_iterator(folder.path());
  CHECK(std::distance(begin, std::filesystem::directory_iterator()) == 2);
}

}  // namespace
}  // namespace bitnet
