// SPDX-License-Identifier: MIT
// TensorBoard event files: scalars as protobuf records in TFRecord framing. Record: u64 length |
// masked crc32c of it | data | masked crc32c of the data, little-endian. Event: 1 double wall_time,
// 2 int64 step, 3 string file_version, 5 Summary, 7 SessionLog.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace bitnet {

struct Scalar {
  std::string tag;  // "train/loss"
  double value = 0;
};

namespace tensorboard {

std::uint32_t crc32c(std::string_view bytes);  // Castagnoli, reflected polynomial 0x82F63B78

// Framed records. `wall_time` in seconds since 1970.
std::string version_record(double wall_time);  // the first one of every file
std::string scalars_record(double wall_time, std::int64_t step, std::span<const Scalar> scalars);
// Makes TensorBoard drop what earlier files hold of steps >= `step`.
std::string restart_record(double wall_time, std::int64_t step);

}  // namespace tensorboard

// One event file, events.out.tfevents.<seconds>.<host>.<pid>.<n>; each run and each resume writes
// its own.
class TensorBoardWriter {
 public:
  // Creates the folder. first_step > 1 on a resume: points of an earlier try from there on are
  // dropped.
  TensorBoardWriter(const std::filesystem::path& folder, std::int64_t first_step);

  // Throws Error with the path and the system's reason.
  void write(std::int64_t step, std::span<const Scalar> scalars);

 private:
  void append(const std::string& record);

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace bitnet
