// The two ways a vocabulary says which neighbours merge, behind one question: "may these two
// symbols become one, and how early?" Built once, immutable.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>
#include <variant>
#include <vector>

#include "text/tokenizer/vocabulary.h"

namespace lamina {

// The lowest rank merges first. `id` below 0: these two never merge.
struct Merge {
  uint32_t rank = 0;
  int32_t id = -1;
};

// A list of pairs (Hugging Face, byte-level GGUF).
class PairMerges {
 public:
  struct Rule {
    int32_t left;
    int32_t right;
    Merge merge;
  };

  // `vocab_size`: above every id in `rules`. Of two rules for a pair the higher rank counts.
  PairMerges(std::vector<Rule> rules, int32_t vocab_size);

  // Ids may be negative: symbols without a token never merge.
  [[nodiscard]] Merge find(int32_t left, int32_t right) const;

 private:
  struct Entry {
    int32_t right;
    Merge merge;
  };
  std::vector<uint32_t> row_begin_;  // [vocab_size + 1] into entries_, by left id
  std::vector<Entry> entries_;       // by right id within a row
};

// Any two symbols whose texts join to a piece, the best score first (SentencePiece).
class ScoredMerges {
 public:
  static constexpr uint32_t kNeverMerged = std::numeric_limits<uint32_t>::max();

  // `ranks[id]`: 0 for the best score, equal for equal scores; kNeverMerged for control tokens.
  explicit ScoredMerges(std::vector<uint32_t> ranks) : ranks_(std::move(ranks)) {}

  [[nodiscard]] Merge find(const Vocabulary& vocabulary, std::string_view joined) const;
  // Whether text may become the token `id` at all.
  [[nodiscard]] bool is_piece(int32_t id) const {
    return ranks_[static_cast<size_t>(id)] != kNeverMerged;
  }

 private:
  std::vector<uint32_t> ranks_;
};

using MergeRules = std::variant<PairMerges, ScoredMerges>;

}  // namespace lamina
