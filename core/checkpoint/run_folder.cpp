// SPDX-License-Identifier: MIT
#include "core/checkpoint/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>
#include <system_error>

#include "core/base/error.h"
#include "core/base/file.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* kComplete = "COMPLETE";
constexpr const char* kLock = "lock";
constexpr std::string_view kCheckpoint = "checkpoint-";
constexpr std::string_view kTemporary = "tmp-checkpoint-";
constexpr std::string_view kDiscarded = "tmp-discarded-checkpoint-";

// The N of "<prefix>N", or nothing.
std::optional<std::int64_t> step_of(const std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  const char *first = name.data() + prefix.size(), *last = name.data() + name.size();
  std::int64_t step = 0;
  const auto [end, code] = std::from_chars(first, last, step);
  // Only the spelling we write: not "checkpoint-007".
  if (code != std::errc() || end != last || step < 0 ||
      std::to_string(step) != std::string(first)) {
    return std::nullopt;
  }
  return step;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
    names.push_back(it->path().filename().string());
  }
  if (code) {
    throw Error(fmt::format("{}: cannot list the folder: {}", folder.string(), code.message()));
  }
  return names;
}

// Whether a file or link of this name in a run folder is of our making.
bool is_run_file(std::string_view name) {
  for (const char* known :
       {"config.json", "metrics.jsonl", "train.log", "tb", "latest", "best", kLock}) {
    if (name == known) return true;
  }
  return false;
}

// "<file>.tmp-<process id>": what OutputFile and point_to() leave when they are killed.
bool is_leftover(const std::string& name) {
  const std::size_t end = name.rfind(".tmp-");
  return end != std::string::npos && is_run_file(name.substr(0, end)) &&
         step_of(name.substr(end), ".tmp-");
}

bool belongs_to_run(const std::string& name) {
  return is_run_file(name) || is_leftover(name) || step_of(name, kCheckpoint) ||
         step_of(name, kTemporary) || step_of(name, kDiscarded);
}

void delete_tree(const fs::path& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) throw Error(fmt::format("{}: cannot delete: {}", path.string(), code.message()));
}

void move_to(const fs::path& from, const fs::path& to) {
  std::error_code code;
  fs::rename(from, to, code);
  if (code) {
    throw Error(fmt::format("{}: cannot rename to {}: {}", from.string(), to.filename().string(),
                            code.message()));
  }
}

// Deletes a checkpoint so that, killed half way, no incomplete folder keeps a checkpoint's name.
void discard_checkpoint(const fs::path& run, std::int64_t step) {
  const fs::path discarded = run / fmt::format("{}{}", kDiscarded, step);
  delete_tree(discarded);
  move_to(run / fmt::format("{}{}", kCheckpoint, step), discarded);
  delete_tree(discarded);
}

// Flushes every file below `folder`, whoever wrote it, and the folders themselves.
void sync_tree(const fs::path& folder) {
  for (const std::string& name : names_in(folder)) {
    const fs::path path = folder / name;
    std::error_code code;
    if (fs::is_directory(fs::symlink_status(path, code))) {
      sync_tree(path);
      continue;
    }
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0) continue;  // a symbolic link has nothing to flush
    const int result = ::fsync(descriptor);
    const int reason = errno;
    ::close(descriptor);
    if (result != 0 && reason != EINVAL) {
      throw Error(fmt::format("{}: cannot flush to the disk: {}", path.string(),
                              std::generic_category().message(reason)));
    }
  }
  sync_folder(folder);
}

std::vector<std::int64_t> complete_steps(const fs::path& run) {
  std::vector<std::int64_t> steps;
  for (const std::string& name : names_in(run)) {
    const auto step = step_of(name, kCheckpoint);
    if (step && is_complete_checkpoint(run / name)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

// The complete checkpoint of this run that a link in it leads to.
std::optional<std::int64_t> pointed_step(const fs::path& run, const char* link) {
  const auto target = pointed_path(run / link);
  if (!target) return std::nullopt;
  const std::string name = target->filename().string();
  const auto step = step_of(name, kCheckpoint);
  return step && is_complete_checkpoint(run / name) ? step : std::nullopt;
}

std::optional<std::int64_t> newest_step(const fs::path& run) {
  if (const auto step = pointed_step(run, "latest")) return step;
  const std::vector<std::int64_t> steps = complete_steps(run);
  return steps.empty() ? std::nullopt : std::optional(steps.back());
}

}  // namespace

FolderLock::FolderLock(const fs::path& folder) {
  const fs::path file = folder / kLock;
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    throw Error(fmt::format("{}: cannot open for writing: {}", file.string(),
                            std::generic_category().message(errno)));
  }
  // Where the file system knows no locks, there is none.
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(descriptor_);
  throw Error(fmt::format("{}: is being trained by another process; wait for it, or stop it first",
                          folder.string()));
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void RunFolder::check_replaceable(const fs::path& path, bool force) {
  std::error_code code;
  if (fs::status(path, code).type() == fs::file_type::not_found) return;
  std::vector<std::string> names = names_in(path);
  std::erase(names, kLock);
  if (names.empty()) return;
  const auto foreign = std::find_if_not(names.begin(), names.end(), belongs_to_run);
  if (foreign != names.end()) {
    throw UsageError(
        fmt::format("{}: holds {}, which is no part of a run{}; choose another folder with --out",
                    path.string(), *foreign, force ? ", so --force does not replace it" : ""));
  }
  if (!force) {
    throw UsageError(
        fmt::format("{}: already holds a run; choose another folder with --out, continue it with "
                    "--resume, or replace it with --force",
                    path.string()));
  }
}

RunFolder RunFolder::create(const fs::path& path, bool force) {
  check_replaceable(path, force);
  make_folders(path);
  RunFolder run(path);
  check_replaceable(path, force);  // another process may have begun and ended meanwhile
  for (const std::string& name : names_in(path)) {
    if (name != kLock) delete_tree(path / name);
  }
  return run;
}

RunFolder RunFolder::open(const fs::path& path) {
  std::error_code code;
  if (!fs::is_directory(path, code)) {
    throw Error(fmt::format("{}: is not a folder; expected the folder of a run", path.string()));
  }
  if (!fs::exists(path / "config.json", code)) {
    throw Error(fmt::format("{}: is not a run folder: it has no config.json", path.string()));
  }
  RunFolder run(path);
  run.repair();
  return run;
}

// tmp-checkpoint-N with COMPLETE lacks only its name, and gets it; without, it cannot be used.
void RunFolder::repair() {
  std::error_code code;
  for (const std::string& name : names_in(path_)) {
    if (const auto step = step_of(name, kTemporary)) {
      if (is_complete_checkpoint(path_ / name) && !fs::exists(checkpoint_folder(*step), code)) {
        move_to(path_ / name, checkpoint_folder(*step));
        sync_folder(path_);
        point_to(path_ / "latest", checkpoint_folder(*step));
      } else {
        delete_tree(path_ / name);
      }
    } else if (step_of(name, kDiscarded) || is_leftover(name)) {
      delete_tree(path_ / name);
    }
  }
}

fs::path RunFolder::checkpoint_folder(std::int64_t step) const {
  return path_ / fmt::format("{}{}", kCheckpoint, step);
}

fs::path RunFolder::begin_checkpoint(std::int64_t step) {
  BITNET_CHECK(step >= 0, "checkpoint of step {}", step);
  const fs::path folder = path_ / fmt::format("{}{}", kTemporary, step);
  delete_tree(folder);
  make_folders(folder);
  return folder;
}

fs::path RunFolder::complete_checkpoint(std::int64_t step) {
  const fs::path temporary = path_ / fmt::format("{}{}", kTemporary, step);
  const fs::path folder = checkpoint_folder(step);
  sync_tree(temporary);
  write_file(temporary / kComplete, fmt::format("{}\n", step));  // last, and it flushes the folder
  std::error_code code;
  if (fs::exists(folder, code)) discard_checkpoint(path_, step);
  move_to(temporary, folder);
  sync_folder(path_);
  point_to(path_ / "latest", folder);
  return folder;
}

void RunFolder::mark_best(std::int64_t step) {
  BITNET_CHECK(is_complete_checkpoint(checkpoint_folder(step)), "no complete checkpoint of step {}",
               step);
  point_to(path_ / "best", checkpoint_folder(step));
}

void RunFolder::delete_old_checkpoints(std::int64_t keep) {
  if (keep <= 0) return;
  const auto latest = latest_checkpoint(), best = pointed_step(path_, "best");
  const std::vector<std::int64_t> steps = list_checkpoints();
  auto excess = static_cast<std::int64_t>(steps.size()) - keep;
  for (const std::int64_t step : steps) {
    if (excess <= 0) break;
    if (step == latest || step == best) continue;
    discard_checkpoint(path_, step);
    --excess;
  }
}

std::vector<std::int64_t> RunFolder::list_checkpoints() const { return complete_steps(path_); }

std::optional<std::int64_t> RunFolder::latest_checkpoint() const { return newest_step(path_); }

std::optional<fs::path> newest_checkpoint(const fs::path& run_folder) {
  const auto step = newest_step(run_folder);
  if (!step) return std::nullopt;
  return run_folder / fmt::format("{}{}", kCheckpoint, *step);
}

bool is_complete_checkpoint(const fs::path& folder) {
  std::error_code code;
  return fs::is_regular_file(folder / kComplete, code);
}

bool looks_like_checkpoint(const fs::path& folder) {
  std::error_code code;
  const fs::path real = fs::canonical(folder, code);
  const std::string name = (code ? folder : real).filename().string();
  return step_of(name, kTemporary) || step_of(name, kDiscarded) ||
         fs::exists(folder / "trainer_state.json", code) ||
         fs::exists(folder / "optimizer.safetensors", code);
}

void point_to(const fs::path& link, const fs::path& target) {
  const fs::path parent = link.has_parent_path() ? link.parent_path() : fs::path(".");
  std::error_code code;
  fs::path relative = fs::proximate(target, parent, code);
  if (code || relative.empty()) relative = fs::absolute(target, code);
  if (fs::is_directory(fs::symlink_status(link, code))) {
    throw Error(fmt::format("{}: is a folder, expected a link to {}; move it away", link.string(),
                            relative.string()));
  }
  fs::path temporary = link;
  temporary += fmt::format(".tmp-{}", ::getpid());
  fs::remove(temporary, code);
  fs::create_symlink(relative, temporary, code);
  if (code) {  // FAT and some network file systems
    write_file(link, relative.string() + "\n");
    return;
  }
  move_to(temporary, link);
  sync_folder(parent);
}

std::optional<fs::path> pointed_path(const fs::path& link) {
  std::error_code code;
  const fs::file_status status = fs::symlink_status(link, code);
  fs::path target;
  if (fs::is_symlink(status)) {
    target = fs::read_symlink(link, code);
  } else if (fs::is_regular_file(status)) {
    constexpr std::size_t kLongestPath = 4096;
    if (fs::file_size(link, code) > kLongestPath) return std::nullopt;
    std::string text = read_text_file(link, kLongestPath);
    text.erase(std::find(text.begin(), text.end(), '\n'), text.end());
    if (text.find('\0') != std::string::npos) return std::nullopt;
    target = text;
  }
  if (code || target.empty()) return std::nullopt;
  return link.parent_path() / target;  // an absolute target replaces the parent
}

}  // namespace bitnet
