// SPDX-License-Identifier: MIT
// The content of a SentencePiece model file (tokenizer.model), a protobuf of few fields: read for
// writers of other formats, and written for vocabularies that come from other formats. Encoding is
// the library's (sentencepiece_tokenizer.cpp).
//
//   ModelProto     = pieces 1: SentencePiece…, trainer_spec 2, normalizer_spec 3
//   SentencePiece  = piece 1: string, score 2: float, type 3: PieceType
//   TrainerSpec    = model_type 3, treat_whitespace_as_suffix 24, byte_fallback 35,
//                    unk_piece 45, bos_piece 46, eos_piece 47: strings
//   NormalizerSpec = name 1, precompiled_charsmap 2: bytes, add_dummy_prefix 3,
//                    remove_extra_whitespaces 4, escape_whitespaces 5
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// The numbers are those of the format, which GGUF's tokenizer.ggml.token_type shares.
enum class PieceType : std::uint8_t {
  normal = 1,
  unknown = 2,  // stands for what has no piece; there is exactly one
  control = 3,
  user_defined = 4,  // found in any text before it is cut
  unused = 5,
  byte = 6,  // "<0x0A>"
};

enum class PieceAlgorithm : std::uint8_t { unigram = 1, bpe = 2, word = 3, character = 4 };

struct SentencePieceData {
  struct Piece {
    std::string text;
    float score = 0;  // of two neighbours that could be merged, the pair of higher score is
    PieceType type = PieceType::normal;
  };
  std::vector<Piece> pieces;  // by id
  PieceAlgorithm algorithm = PieceAlgorithm::unigram;
  bool byte_fallback = false;       // characters without a piece become their bytes
  bool space_suffix = false;        // spaces belong to the word before them
  bool normalizes = false;          // characters are replaced before encoding (NFKC, …)
  bool adds_space = true;           // before the first word of a text
  bool trims_spaces = true;         // several become one, none stay at the ends
  bool escapes_spaces = true;       // written as "▁"
  std::optional<std::int32_t> bos;  // begins a text, where the model's other files do not deny it
  std::optional<std::int32_t> eos;
};

// Throws FormatError (with `path`) for what is no such protobuf. What the library demands beyond
// that (one unknown piece, all bytes or none) is not looked at.
SentencePieceData parse_sentencepiece(std::string_view model, const std::string& path);

// A model file that the library reads as the same. `data` does not normalize, which would need
// tables that it does not hold.
std::string serialize_sentencepiece(const SentencePieceData& data);

}  // namespace bitnet
