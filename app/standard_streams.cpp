// SPDX-License-Identifier: MIT
#include "app/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace bitnet {
namespace {

// 0, or the errno of the write that failed.
int write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

void prepare_standard_streams() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) != -1) continue;
    // open() gives the lowest free number, this one. Opened the wrong way round, so that using it
    // still fails.
    if (::open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY) == -1)
      throw Error("cannot open /dev/null");
  }
}

void write_stdout(std::string_view bytes) {
  const int error = write_all(STDOUT_FILENO, bytes);
  if (error == EPIPE) throw BrokenPipe();
  if (error != 0)
    throw Error(fmt::format("cannot write to standard output: {}", std::strerror(error)));
}

void write_json_line(const nlohmann::ordered_json& object) {
  write_stdout(object.dump(-1, ' ', /*ensure_ascii=*/true,
                           nlohmann::ordered_json::error_handler_t::replace) +
               "\n");
}

void write_stderr_line(std::string_view line) {
  write_all(STDERR_FILENO, std::string(line) + "\n");
}

std::string read_stdin() {
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error(fmt::format("cannot read standard input: {}", std::strerror(errno)));
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

bool stdin_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }
bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

void ProgressLine::show(std::string_view text) {
  const auto now = std::chrono::steady_clock::now();
  if (!stderr_is_terminal() || (shown_ && now - last_ < std::chrono::milliseconds(100))) return;
  shown_ = true;
  last_ = now;
  write_all(STDERR_FILENO, fmt::format("\r\033[K{}", text));
}

ProgressLine::~ProgressLine() {
  if (shown_) write_all(STDERR_FILENO, "\r\033[K");
}

}  // namespace bitnet
