// SPDX-License-Identifier: MIT
// The exceptions of the program. Only app/main.cpp catches them to report; see docs/architecture.md
// for exit codes.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace bitnet {

// Something the user can mend: an unwritable folder, a diverged run, a missing file. Exit code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A wrong argument, config key or config value. Exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

// A loss, gradient, weight or logit that is infinite or not a number: the training has diverged.
// Exit code 1.
class NonFiniteError : public Error {
 public:
  using Error::Error;
};

// A file whose bytes are not what they must be: truncated, corrupted, foreign or hostile. Exit
// code 3. what() reads "PATH: at byte OFFSET: REASON".
class FormatError : public Error {
 public:
  FormatError(const std::string& path, std::uint64_t offset, const std::string& reason)
      : Error(fmt::format("{}: at byte {}: {}", path, offset, reason)), offset_(offset) {}
  std::uint64_t offset() const { return offset_; }

 private:
  std::uint64_t offset_;
};

// No usable device, or it has too little memory. Exit code 4.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// A broken contract between parts of the program (a shape, a null view). Exit code 1.
class ContractError : public Error {
 public:
  using Error::Error;
};

}  // namespace bitnet

// States both values in the message: BITNET_CHECK(k % 64 == 0, "in_features is {}, not a multiple
// of 64", k).
#define BITNET_CHECK(condition, ...)                                                    \
  do {                                                                                  \
    if (!(condition))                                                                   \
      throw ::bitnet::ContractError(                                                    \
          fmt::format("{}:{}: {}", __FILE_NAME__, __LINE__, fmt::format(__VA_ARGS__))); \
  } while (false)
