// SPDX-License-Identifier: MIT
#include "core/base/file.h"

#include <sys/stat.h>

#include <functional>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "tests/support/catch.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
namespace fs = std::filesystem;

namespace {

std::size_t files_in(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a file reads back what was written, mapped or whole") {
  const test::TemporaryFolder folder;
  const std::string text("a\0b\xff", 4);
  write_file(folder / "f", text);
  CHECK(read_text_file(folder / "f") == text);
  MappedFile mapped(folder / "f");
  CHECK(std::string(mapped.bytes().begin(), mapped.bytes().end()) == text);
  MappedFile moved(std::move(mapped));
  CHECK(moved.bytes().size() == 4);
  CHECK(mapped.bytes().empty());
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("an empty file maps to an empty span") {
  const test::TemporaryFolder folder;
  write_file(folder / "f", "");
  CHECK(MappedFile(folder / "f").bytes().empty());
  CHECK(read_text_file(folder / "f").empty());
}

TEST_CASE("what is not a regular file is refused by name") {
  const test::TemporaryFolder folder;
  CHECK(message_of([&] { MappedFile{folder.path()}; }) ==
        folder.path().string() + ": is a folder, expected a regular file");
  CHECK(message_of([&] { MappedFile{folder / "none"}; }) ==
        (folder / "none").string() + ": cannot open for reading: No such file or directory");
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_AS(read_text_file(folder / "pipe"), Error);  // and does not wait for a writer
  CHECK_THROWS_AS(MappedFile("/dev/zero"), Error);
}

TEST_CASE("a file longer than allowed is not read") {
  const test::TemporaryFolder folder;
  write_file(folder / "f", "12345");
  CHECK(read_text_file(folder / "f", 5) == "12345");
  CHECK_THROWS_AS(read_text_file(folder / "f", 4), Error);
}

TEST_CASE("without commit the old file stays and nothing else is left") {
  const test::TemporaryFolder folder;
  write_file(folder / "f", "old");
  {
    OutputFile file(folder / "f");
    file.write("new");
  }
  CHECK(read_text_file(folder / "f") == "old");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("a write that fails for want of space leaves the old file") {
  const test::TemporaryFolder folder;
  write_file(folder / "f", "old");
  std::string message;
  {
    const test::FileSizeLimit limit(1000);
    message = message_of([&] { write_file(folder / "f", std::string(5000, 'x')); });
  }
  CHECK(message == (folder / "f").string() + ": cannot write: File too large");
  CHECK(read_text_file(folder / "f") == "old");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("a folder that cannot be written to is named with the reason") {
  const test::TemporaryFolder folder;
  write_file(folder / "f", "");
  CHECK(message_of([&] { write_file(folder / "f" / "g", "x"); }) ==
        (folder / "f" / "g").string() + ": cannot create: Not a directory");
  CHECK_THROWS_AS(make_folders(folder / "f"), Error);
  CHECK_THROWS_AS(make_folders(folder / "f" / "g"), Error);
  make_folders(folder / "a" / "b");
  make_folders(folder / "a" / "b");
  CHECK(fs::is_directory(folder / "a" / "b"));
}

TEST_CASE("an output file holds what was written, in pieces of any size") {
  const test::TemporaryFolder folder;
  const auto block = static_cast<std::size_t>(kLargePage);  // is written at once
  for (const std::size_t size : {std::size_t{0}, block - 1, block, block + 1, 3 * block + 7}) {
    for (const std::size_t piece : {std::size_t{4099}, block, 4 * block}) {
      INFO(size << " bytes in pieces of " << piece);
      std::string text(size, ' ');
      for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * i % 23);
      OutputFile file(folder / "f");
      for (std::size_t at = 0; at < size; at += piece)
        file.write(std::string_view(text).substr(at, piece));
      file.commit();
      CHECK(read_text_file(folder / "f") == text);
    }
  }
}
