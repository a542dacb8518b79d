// SPDX-License-Identifier: MIT
#include "core/bench/bench_configs.h"

#include <filesystem>

#include "core/base/file.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

RunConfig read_preset(const char* name) {
  const auto path = std::filesystem::path(BITNET_SOURCE_DIR) / "configs" / name;
  return read_run_config(read_text_file(path), path.string());
}

TEST_CASE("the shapes that bench measures by itself are those of the files in configs") {
  CHECK(write_run_config(read_preset("bench_7m.json")) ==
        write_run_config(bench_inference_config()));
  CHECK(write_run_config(read_preset("bench_train.json")) ==
        write_run_config(bench_training_config()));
}

}  // namespace
}  // namespace bitnet
