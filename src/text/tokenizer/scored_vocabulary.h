// What a tokenizer.model and a "llama" GGUF vocabulary share: pieces with scores and kinds, turned
// into a tokenizer of SentencePiece style.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer/bpe_tokenizer.h"

namespace lamina {

// The numbers are those of both formats.
enum class PieceKind : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct ScoredVocabulary {
  std::vector<std::string> texts;
  std::vector<float> scores;     // one each
  std::vector<PieceKind> kinds;  // one each
  std::optional<int32_t> unknown_id, bos_id, eos_id;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;
  bool byte_fallback = true;
  // User-defined pieces are looked for after spaces became U+2581 (else before).
  bool user_defined_normalized = false;
};

// Throws Error kInvalidArgument: kind or id out of range, a score that is not a number.
PieceKind to_piece_kind(int32_t kind);
void check_token_id(const std::optional<int32_t>& id, size_t vocab_size, const char* what);
std::unique_ptr<Tokenizer> make_scored_tokenizer(const ScoredVocabulary& source);

}  // namespace lamina
