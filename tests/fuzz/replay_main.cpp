// SPDX-License-Identifier: MIT
// Gives each file of the folders on the command line to a fuzz target once. Any compiler builds it,
// so what a fuzzer has found before is part of every test run.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  std::set<std::filesystem::path> files;  // in one order everywhere
  for (int i = 1; i < argc; ++i)
    for (const auto& item : std::filesystem::directory_iterator(argv[i])) files.insert(item.path());
  if (files.empty()) {
    std::fprintf(stderr, "usage: %s FOLDER...; the folders hold no file\n", argv[0]);
    return 2;
  }
  for (const std::filesystem::path& file : files) {
    std::fprintf(stderr, "%s\n", file.filename().c_str());  // the last line names a crash
    std::ifstream stream(file, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(stream)), {});
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  std::fprintf(stderr, "%zu inputs\n", files.size());
}
