// BpeModel: one piece of text to token ids by byte-pair merges, lowest rank first, leftmost of
// equals. O(n log n) in the piece, which may be the whole text: a heap of candidate merges over a
// linked list of symbols, about 32 bytes of memory per byte of text. Immutable; the scratch is the
// caller's.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/tokenizer/merge_rules.h"
#include "text/tokenizer/vocabulary.h"

namespace lamina {

class BpeModel {
 public:
  struct Options {
    bool byte_level = false;     // symbols are bytes in the printable alphabet, else characters
    bool byte_fallback = false;  // a character without a token becomes its bytes' "<0xE4>" tokens
    bool ignore_merges = false;  // a piece that is a token as a whole is not built by merges
    bool fuse_unknown = false;   // unknown characters in a row become one unknown token
    std::optional<int32_t> unknown_id;  // without it, unknown characters vanish
  };

  // Reused between calls to save allocations. Confined to one thread.
  class Scratch {
    friend class BpeModel;
    struct Symbol {
      int32_t id;
      uint32_t begin;
      uint32_t prev;
      uint32_t next;
    };
    struct Candidate {
      uint32_t rank;
      uint32_t left;  // symbol
      uint32_t end;   // where the pair's text ends; tells whether the pair still stands
      int32_t id;
    };
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  BpeModel(Vocabulary vocabulary, MergeRules rules, const Options& options);

  // Appends the ids of `piece`: valid UTF-8, under 4 GiB.
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;

  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }
  [[nodiscard]] const Options& options() const { return options_; }

 private:
  [[nodiscard]] std::optional<int32_t> find_piece(std::string_view piece) const;
  [[nodiscard]] int32_t symbol_id(std::string_view symbol) const;
  void make_symbols(std::string_view piece, Scratch& scratch) const;
  template <typename FindMerge>
  void merge_symbols(std::string_view piece, Scratch& scratch, const FindMerge& find_merge) const;
  void emit(std::string_view piece, const Scratch& scratch, std::vector<int32_t>& ids) const;
  // Whether a character without a token of its own becomes byte tokens.
  [[nodiscard]] bool has_byte_tokens(std::string_view character) const;
  // Whether it leaves nothing behind at all: then its neighbours may merge.
  [[nodiscard]] bool vanishes(std::string_view character) const {
    return !options_.unknown_id && !has_byte_tokens(character);
  }

  Vocabulary vocabulary_;
  MergeRules rules_;
  Options options_;
  std::array<int32_t, 256> byte_ids_{};  // kNoId: no such token
};

// "<0xE4>", as vocabularies with byte fallback write the byte 0xE4.
std::string byte_token(unsigned char byte);
// The byte that such a token stands for.
std::optional<char> parse_byte_token(std::string_view token);

}  // namespace lamina
