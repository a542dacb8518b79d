// SPDX-License-Identifier: MIT
#include "core/checkpoint/run_folder.h"

#include <set>
#include <string>

#include "core/base/error.h"
#include "core/base/file.h"
#include "tests/support/catch.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
namespace fs = std::filesystem;
using Steps = std::vector<std::int64_t>;

namespace {

RunFolder make_run(const fs::path& path) {
  RunFolder run = RunFolder::create(path, false);
  write_file(run.config_file(), "{}");
  return run;
}

void save(RunFolder& run, std::int64_t step, std::int64_t keep = 0,
          const std::string& content = "model") {
  write_file(run.begin_checkpoint(step) / "model.safetensors", content);
  run.complete_checkpoint(step);
  run.delete_old_checkpoints(keep);
}

// What the end of its process does to a run: others may train into the folder again.
void end_process(RunFolder run) { CHECK(fs::exists(run.path() / "lock")); }

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(folder)) names.insert(item.path().filename());
  return names;
}

}  // namespace

TEST_CASE("a completed checkpoint is listed and is the latest") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  CHECK(run.list_checkpoints().empty());
  CHECK(!run.latest_checkpoint());
  save(run, 9);
  save(run, 10);
  save(run, 100);
  CHECK(run.list_checkpoints() == Steps{9, 10, 100});
  CHECK(run.latest_checkpoint() == 100);
  CHECK(fs::read_symlink(folder / "run" / "latest") == "checkpoint-100");
  CHECK(names_in(run.checkpoint_folder(9)) ==
        std::set<std::string>{"model.safetensors", "COMPLETE"});
  CHECK(names_in(run.path()) == std::set<std::string>{"config.json", "checkpoint-9",
                                                      "checkpoint-10", "checkpoint-100", "latest",
                                                      "lock"});
}

TEST_CASE("an existing run is not overwritten without force") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  save(run, 5);
  end_process(std::move(run));
  CHECK_THROWS_AS(RunFolder::create(folder / "run", false), UsageError);
  CHECK(newest_checkpoint(folder / "run") == folder / "run" / "checkpoint-5");
  CHECK(RunFolder::create(folder / "run", true).list_checkpoints().empty());
  CHECK(names_in(folder / "run") == std::set<std::string>{"lock"});
  CHECK_NOTHROW(RunFolder::create(folder / "run", false));
}

TEST_CASE("a folder that holds anything but a run is never overwritten, not even with force") {
  const test::TemporaryFolder folder;
  const bool of_a_run_too = GENERATE(true, false);
  const fs::path path = folder / "folder";
  if (of_a_run_too) end_process(make_run(path));
  make_folders(path);
  for (const char* name : {"model.safetensors", "config.json"}) write_file(path / name, "mine");
  const auto before = names_in(path);
  for (const bool force : {false, true}) {
    std::string message;
    try {
      RunFolder::create(path, force);
    } catch (const UsageError& e) {
      message = e.what();
    }
    CHECK(message.find("model.safetensors") != std::string::npos);
  }
  CHECK(names_in(path) == before);
  CHECK(read_text_file(path / "config.json") == "mine");
}

TEST_CASE("one process at a time trains into a folder") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "run";
  RunFolder run = make_run(path);
  save(run, 5);
  CHECK_THROWS_AS(RunFolder::open(path), Error);
  CHECK_THROWS_AS(RunFolder::create(path, true), Error);
  CHECK(newest_checkpoint(path) == path / "checkpoint-5");
  end_process(std::move(run));
  CHECK(RunFolder::open(path).latest_checkpoint() == 5);
}

TEST_CASE("only a run folder can be opened") {
  const test::TemporaryFolder folder;
  write_file(folder / "file", "");
  CHECK_THROWS_AS(RunFolder::open(folder / "none"), Error);
  CHECK_THROWS_AS(RunFolder::open(folder / "file"), Error);
  CHECK_THROWS_AS(RunFolder::open(folder.path()), Error);
}

TEST_CASE("old checkpoints beyond the limit go, but never the latest nor the best") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  save(run, 1, 2);
  run.mark_best(1);
  save(run, 2, 2);
  save(run, 3, 2);
  CHECK(run.list_checkpoints() == Steps{1, 3});
  save(run, 4, 1);
  CHECK(run.list_checkpoints() == Steps{1, 4});
  run.mark_best(4);
  save(run, 5, 3);
  CHECK(run.list_checkpoints() == Steps{1, 4, 5});
  // A run that went back: the latest is not the highest.
  save(run, 3, 1);
  CHECK(run.list_checkpoints() == Steps{3, 4});
  CHECK(run.latest_checkpoint() == 3);
}

TEST_CASE("a checkpoint of the same step is replaced") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  save(run, 1, 0, "old");
  save(run, 1, 0, "new");
  CHECK(read_text_file(run.checkpoint_folder(1) / "model.safetensors") == "new");
  CHECK(run.list_checkpoints() == Steps{1});
  CHECK(names_in(run.path()) ==
        std::set<std::string>{"config.json", "checkpoint-1", "latest", "lock"});
}

TEST_CASE("a run killed at any moment of saving keeps what was complete") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  save(run, 1);
  const fs::path path = run.path(), temporary = path / "tmp-checkpoint-2";
  std::int64_t latest = 1;
  Steps steps = {1};

  SECTION("while the files are written") {
    write_file(run.begin_checkpoint(2) / "model.safetensors", "half");
    write_file(temporary / "optimizer.safetensors.tmp-1", "half");
  }
  SECTION(
      "when COMPLETE is written, before the rename: the checkpoint is whole and gets its name") {
    write_file(run.begin_checkpoint(2) / "model.safetensors", "whole");
    write_file(temporary / "COMPLETE", "2\n");
    latest = 2;
    steps = {1, 2};
  }
  SECTION("after the rename, before `latest` is moved") {
    save(run, 2);
    point_to(path / "latest", run.checkpoint_folder(1));
    steps = {1, 2};
  }
  SECTION("while `latest` is replaced") {
    save(run, 2);
    fs::create_symlink("checkpoint-2", path / "latest.tmp-1");
    latest = 2;
    steps = {1, 2};
  }
  SECTION("before the first `latest` was made") { fs::remove(path / "latest"); }
  SECTION("`latest` leads nowhere") {
    fs::remove(path / "latest");
    fs::create_symlink("checkpoint-7", path / "latest");
  }
  SECTION("while an old checkpoint is deleted") {
    save(run, 2);
    fs::rename(run.checkpoint_folder(1), path / "tmp-discarded-checkpoint-1");
    latest = 2;
    steps = {2};
  }
  SECTION("while a checkpoint of the same step is replaced") {
    save(run, 2, 0, "old");
    write_file(run.begin_checkpoint(2) / "model.safetensors", "new");
    write_file(temporary / "COMPLETE", "2\n");
    fs::rename(run.checkpoint_folder(2), path / "tmp-discarded-checkpoint-2");
    latest = 2;
    steps = {1, 2};
  }
  end_process(std::move(run));
  RunFolder again = RunFolder::open(path);
  CHECK(again.list_checkpoints() == steps);
  CHECK(again.latest_checkpoint() == latest);
  for (const std::string& name : names_in(path)) CHECK(name.find("tmp-") == std::string::npos);
  save(again, 3);
  CHECK(again.latest_checkpoint() == 3);
  CHECK(newest_checkpoint(path) == path / "checkpoint-3");
}

TEST_CASE("a disk that is full leaves the earlier checkpoint the latest") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  save(run, 1);
  const fs::path temporary = run.begin_checkpoint(2);
  {
    const test::FileSizeLimit limit(0);
    CHECK_THROWS_AS(run.complete_checkpoint(2), Error);
  }
  CHECK(run.latest_checkpoint() == 1);
  end_process(std::move(run));
  CHECK(RunFolder::open(folder / "run").list_checkpoints() == Steps{1});
}

TEST_CASE("names that only look like checkpoints are left alone") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  for (const char* name : {"checkpoint-", "checkpoint-x", "checkpoint-007", "checkpoint--1",
                           "tmp-checkpoint-1x", "checkpoint-99999999999999999999"}) {
    make_folders(run.path() / name);
    write_file(run.path() / name / "COMPLETE", "");
  }
  make_folders(run.path() / "checkpoint-3");  // not complete
  end_process(std::move(run));
  CHECK(RunFolder::open(folder / "run").list_checkpoints().empty());
  CHECK(fs::exists(folder / "run" / "tmp-checkpoint-1x"));
}

TEST_CASE("a text file does where there are no symbolic links") {
  const test::TemporaryFolder folder;
  RunFolder run = make_run(folder / "run");
  save(run, 1);
  save(run, 2);
  fs::remove(run.path() / "latest");
  write_file(run.path() / "latest", "checkpoint-1\n");
  CHECK(run.latest_checkpoint() == 1);
  save(run, 3);
  CHECK(run.latest_checkpoint() == 3);
  CHECK(fs::is_symlink(run.path() / "latest"));
}

TEST_CASE("runs/latest leads to the last run, by a relative path") {
  const test::TemporaryFolder folder;
  make_folders(folder / "runs" / "a");
  make_folders(folder / "elsewhere" / "b");
  const fs::path link = folder / "runs" / "latest";
  point_to(link, folder / "runs" / "a");
  CHECK(fs::read_symlink(link) == "a");
  point_to(link, folder / "elsewhere" / "b");
  CHECK(fs::equivalent(link, folder / "elsewhere" / "b"));
  CHECK(fs::read_symlink(link) == "../elsewhere/b");
  CHECK(pointed_path(link) == folder / "runs" / "../elsewhere/b");
  fs::remove(link);
  make_folders(link);
  CHECK_THROWS_AS(point_to(link, folder / "runs" / "a"), Error);
}
