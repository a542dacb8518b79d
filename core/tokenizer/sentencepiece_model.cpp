// SPDX-License-Identifier: MIT
#include "core/tokenizer/sentencepiece_model.h"

#include <bit>

#include "core/base/error.h"

namespace bitnet {
namespace {

// Numbers of fields, as the header lists them.
namespace model {
constexpr std::uint32_t kPiece = 1, kTrainer = 2, kNormalizer = 3;
}
namespace piece {
constexpr std::uint32_t kText = 1, kScore = 2, kType = 3;
}
namespace trainer {
constexpr std::uint32_t kAlgorithm = 3, kSpaceSuffix = 24, kByteFallback = 35;
constexpr std::uint32_t kUnknown = 45, kBos = 46, kEos = 47;
}  // namespace trainer
namespace normalizer {
constexpr std::uint32_t kName = 1, kCharacterMap = 2, kAddsSpace = 3, kTrims = 4, kEscapes = 5;
}

enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

struct Field {
  std::uint32_t number = 0;
  Wire wire = Wire::varint;
  std::uint64_t value = 0;  // of varint, fixed64 and fixed32
  std::string_view bytes;
};

// The fields of one message, one after the other.
class MessageReader {
 public:
  MessageReader(std::string_view message, std::string_view whole, const std::string& path)
      : rest_(message), whole_(whole), path_(path) {}

  MessageReader inside(const Field& field) const {
    if (field.wire != Wire::bytes) refuse("a field is no message");
    return {field.bytes, whole_, path_};
  }

  // False at the end.
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    field = {static_cast<std::uint32_t>(key >> 3), static_cast<Wire>(key & 7), 0, {}};
    switch (field.wire) {
      case Wire::varint:
        field.value = varint();
        return true;
      case Wire::fixed64:
        field.value = fixed(8);
        return true;
      case Wire::fixed32:
        field.value = fixed(4);
        return true;
      case Wire::bytes:
        field.bytes = take(varint());
        return true;
    }
    refuse("a field is of an unknown kind");
  }

  [[noreturn]] void refuse(const char* reason) const {
    throw FormatError(path_, static_cast<std::uint64_t>(rest_.data() - whole_.data()),
                      fmt::format("this is no SentencePiece model: {}", reason));
  }

 private:
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) refuse("a field is longer than its message");
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(count));
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    refuse("a number has more than 64 bits");
  }

  std::uint64_t fixed(int bytes) {
    std::uint64_t value = 0;
    const std::string_view taken = take(static_cast<std::uint64_t>(bytes));
    for (int i = 0; i < bytes; ++i)
      value |= std::uint64_t{static_cast<std::uint8_t>(taken[static_cast<std::size_t>(i)])}
               << 8 * i;
    return value;
  }

  std::string_view rest_, whole_;
  const std::string& path_;
};

SentencePieceData::Piece read_piece(MessageReader message) {
  SentencePieceData::Piece read;
  for (Field field; message.next(field);) {
    if (field.number == piece::kText) read.text = field.bytes;
    if (field.number == piece::kScore)
      read.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    if (field.number == piece::kType) {
      if (field.value < 1 || field.value > 6) message.refuse("a piece has an unknown type");
      read.type = static_cast<PieceType>(field.value);
    }
  }
  return read;
}

struct SpecialNames {
  std::string bos = "<s>", eos = "</s>";
};

void read_trainer(MessageReader message, SentencePieceData& data, SpecialNames& names) {
  for (Field field; message.next(field);) {
    if (field.number == trainer::kAlgorithm) {
      if (field.value < 1 || field.value > 4) message.refuse("its algorithm is unknown");
      data.algorithm = static_cast<PieceAlgorithm>(field.value);
    }
    if (field.number == trainer::kSpaceSuffix) data.space_suffix = field.value != 0;
    if (field.number == trainer::kByteFallback) data.byte_fallback = field.value != 0;
    // The library takes an empty name for the default.
    if (field.number == trainer::kBos && !field.bytes.empty()) names.bos = field.bytes;
    if (field.number == trainer::kEos && !field.bytes.empty()) names.eos = field.bytes;
  }
}

void read_normalizer(MessageReader message, SentencePieceData& data) {
  for (Field field; message.next(field);) {
    if (field.number == normalizer::kCharacterMap) data.normalizes = !field.bytes.empty();
    if (field.number == normalizer::kAddsSpace) data.adds_space = field.value != 0;
    if (field.number == normalizer::kTrims) data.trims_spaces = field.value != 0;
    if (field.number == normalizer::kEscapes) data.escapes_spaces = field.value != 0;
  }
}

// As the library finds them: by name, among the control pieces.
std::optional<std::int32_t> find_control(const SentencePieceData& data, const std::string& name) {
  for (std::size_t id = 0; id < data.pieces.size(); ++id) {
    if (data.pieces[id].type == PieceType::control && data.pieces[id].text == name)
      return static_cast<std::int32_t>(id);
  }
  return std::nullopt;
}

void put_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to += static_cast<char>(value | 0x80);
  to += static_cast<char>(value);
}

void put_number(std::string& to, std::uint32_t number, std::uint64_t value) {
  put_varint(to, number << 3 | static_cast<std::uint32_t>(Wire::varint));
  put_varint(to, value);
}

void put_bytes(std::string& to, std::uint32_t number, std::string_view bytes) {
  put_varint(to, number << 3 | static_cast<std::uint32_t>(Wire::bytes));
  put_varint(to, bytes.size());
  to += bytes;
}

void put_float(std::string& to, std::uint32_t number, float value) {
  put_varint(to, number << 3 | static_cast<std::uint32_t>(Wire::fixed32));
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) to += static_cast<char>(bits >> shift & 0xff);
}

}  // namespace

SentencePieceData parse_sentencepiece(std::string_view model, const std::string& path) {
  SentencePieceData data;
  SpecialNames names;
  MessageReader message(model, model, path);
  for (Field field; message.next(field);) {
    if (field.number == model::kPiece) data.pieces.push_back(read_piece(message.inside(field)));
    if (field.number == model::kTrainer) read_trainer(message.inside(field), data, names);
    if (field.number == model::kNormalizer) read_normalizer(message.inside(field), data);
  }
  data.bos = find_control(data, names.bos);
  data.eos = find_control(data, names.eos);
  return data;
}

std::string serialize_sentencepiece(const SentencePieceData& data) {
  BITNET_CHECK(!data.normalizes, "a SentencePiece model that normalizes needs its tables");
  std::string model;
  std::string unknown;
  for (const SentencePieceData::Piece& written : data.pieces) {
    std::string message;
    put_bytes(message, piece::kText, written.text);
    put_float(message, piece::kScore, written.score);
    put_number(message, piece::kType, static_cast<std::uint64_t>(written.type));
    put_bytes(model, model::kPiece, message);
    if (written.type == PieceType::unknown) unknown = written.text;
  }
  // Without one, a name that is no piece's: an empty one would mean the default.
  const auto name_of = [&](std::optional<std::int32_t> id) {
    if (id) return data.pieces.at(static_cast<std::size_t>(*id)).text;
    std::string name = "<none>";
    while (find_control(data, name)) name += '>';
    return name;
  };
  std::string message;
  put_number(message, trainer::kAlgorithm, static_cast<std::uint64_t>(data.algorithm));
  put_number(message, trainer::kSpaceSuffix, data.space_suffix ? 1 : 0);
  put_number(message, trainer::kByteFallback, data.byte_fallback ? 1 : 0);
  put_bytes(message, trainer::kUnknown, unknown);
  put_bytes(message, trainer::kBos, name_of(data.bos));
  put_bytes(message, trainer::kEos, name_of(data.eos));
  put_bytes(model, model::kTrainer, message);
  message.clear();
  put_bytes(message, normalizer::kName, "identity");
  put_number(message, normalizer::kAddsSpace, data.adds_space ? 1 : 0);
  put_number(message, normalizer::kTrims, data.trims_spaces ? 1 : 0);
  put_number(message, normalizer::kEscapes, data.escapes_spaces ? 1 : 0);
  put_bytes(model, model::kNormalizer, message);
  return model;
}

}  // namespace bitnet
