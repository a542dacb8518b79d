// SPDX-License-Identifier: MIT
// stdout is data, stderr is talk.
#pragma once

#include <chrono>
#include <exception>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace bitnet {

// Whoever read our stdout has gone, as in `bitnet generate | head -c 10`. Not a failure: the
// program ends quietly.
class BrokenPipe : public std::exception {
 public:
  const char* what() const noexcept override {
    return "the reader of standard output has closed it";
  }
};

// To be called first. A write to a closed pipe, or past the limit of a file's size, returns an
// error instead of ending the process; and a stream the caller has closed (`>&-`) stays unusable
// instead of becoming the number of the next file that is opened.
void prepare_standard_streams();

// All of it at once, unbuffered. Throws BrokenPipe, or Error with the system's reason (a full
// disk).
void write_stdout(std::string_view bytes);
// One object as a line of ASCII: other characters are escaped, so that names in foreign files do no
// harm to a terminal, and bytes that are not UTF-8 become U+FFFD.
void write_json_line(const nlohmann::ordered_json& object);
// One line, "\n" added. A failed write is ignored: there is nobody left to tell.
void write_stderr_line(std::string_view line);
// All of stdin. Throws Error.
std::string read_stdin();

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();

// A line on stderr that is rewritten in place, at most ten times a second; nothing at all when
// stderr is no terminal.
class ProgressLine {
 public:
  ProgressLine() = default;
  ~ProgressLine();  // wipes the line
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(std::string_view text);

 private:
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace bitnet
