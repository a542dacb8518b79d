// SPDX-License-Identifier: MIT
#include "core/train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <system_error>

#include "core/base/error.h"
#include "core/base/file.h"

namespace bitnet {
namespace tensorboard {
namespace {

// --- protobuf wire format: only the four shapes that an Event needs ---

void append_little_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_key(std::string& out, int field, WireType type) {
  append_varint(out, static_cast<std::uint64_t>(field) << 3 | type);
}

void append_bytes(std::string& out, int field, std::string_view value) {
  append_key(out, field, kBytes);
  append_varint(out, value.size());
  out.append(value);
}

std::string event(double wall_time, std::int64_t step) {
  std::string out;
  append_key(out, 1, kFixed64);
  append_little_endian(out, std::bit_cast<std::uint64_t>(wall_time), 8);
  if (step != 0) {  // proto3 leaves zeros out
    append_key(out, 2, kVarint);
    append_varint(out, static_cast<std::uint64_t>(step));
  }
  return out;
}

std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

std::string framed(const std::string& data) {
  std::string out;
  append_little_endian(out, data.size(), 8);
  append_little_endian(out, masked_crc(out), 4);
  out += data;
  append_little_endian(out, masked_crc(data), 4);
  return out;
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes)
    crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF];
  return ~crc;
}

std::string version_record(double wall_time) {
  std::string data = event(wall_time, 0);
  append_bytes(data, 3, "brain.Event:2");
  return framed(data);
}

std::string scalars_record(double wall_time, std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    append_bytes(value, 1, scalar.tag);
    append_key(value, 2, kFixed32);
    append_little_endian(value, std::bit_cast<std::uint32_t>(static_cast<float>(scalar.value)), 4);
    append_bytes(summary, 1, value);
  }
  std::string data = event(wall_time, step);
  append_bytes(data, 5, summary);
  return framed(data);
}

std::string restart_record(double wall_time, std::int64_t step) {
  std::string session_log;
  append_key(session_log, 1, kVarint);
  append_varint(session_log, 1);  // SessionLog.START
  std::string data = event(wall_time, step);
  append_bytes(data, 7, session_log);
  return framed(data);
}

}  // namespace tensorboard

namespace {

double wall_time_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, std::int64_t first_step) {
  make_folders(folder);
  char host[256] = "localhost";
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  const double now = wall_time_now();
  const auto seconds = static_cast<std::int64_t>(now);
  for (int n = 0; file_ == nullptr; ++n) {
    path_ = folder / fmt::format("events.out.tfevents.{:010}.{}.{}.{}", seconds, host, getpid(), n);
    file_.reset(std::fopen(path_.c_str(), "wbx"));
    if (file_ == nullptr && errno != EEXIST)
      throw Error(fmt::format("cannot create {}: {}", path_.string(),
                              std::generic_category().message(errno)));
  }
  append(tensorboard::version_record(now));
  if (first_step > 1) append(tensorboard::restart_record(now, first_step));
}

void TensorBoardWriter::write(std::int64_t step, std::span<const Scalar> scalars) {
  append(tensorboard::scalars_record(wall_time_now(), step, scalars));
}

void TensorBoardWriter::append(const std::string& record) {
  if (std::fwrite(record.data(), 1, record.size(), file_.get()) != record.size() ||
      std::fflush(file_.get()) != 0)
    throw Error(
        fmt::format("cannot write {}: {}", path_.string(), std::generic_category().message(errno)));
}

}  // namespace bitnet
