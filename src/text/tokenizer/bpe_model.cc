#include "text/tokenizer/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "base/check.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/utf8.h"

namespace lamina {
namespace {

constexpr int32_t kNoId = -1;    // no token, but perhaps part of one
constexpr int32_t kMerged = -2;  // the symbol has become part of the one before it
constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

}  // namespace

BpeModel::BpeModel(Vocabulary vocabulary, MergeRules rules, const Options& options)
    : vocabulary_(std::move(vocabulary)), rules_(std::move(rules)), options_(options) {
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const auto value = static_cast<unsigned char>(byte);
    const char as_char = static_cast<char>(value);
    const std::string text =
        options_.byte_level ? to_byte_alphabet({&as_char, 1}) : byte_token(value);
    byte_ids_[byte] = vocabulary_.find_in_model(text).value_or(kNoId);
  }
}

void BpeModel::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  LAMINA_CHECK(piece.size() < kNone);
  if (piece.empty()) return;
  if (options_.ignore_merges) {
    if (const std::optional<int32_t> id = find_piece(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  make_symbols(piece, scratch);
  if (const auto* pairs = std::get_if<PairMerges>(&rules_)) {
    const auto& symbols = scratch.symbols_;
    merge_symbols(piece, scratch, [&](uint32_t left, uint32_t right, uint32_t /*end*/) {
      return pairs->find(symbols[left].id, symbols[right].id);
    });
  } else {
    const auto& scored = std::get<ScoredMerges>(rules_);
    const auto& symbols = scratch.symbols_;
    merge_symbols(piece, scratch, [&](uint32_t left, uint32_t /*right*/, uint32_t end) {
      const uint32_t begin = symbols[left].begin;
      if (end - begin > Vocabulary::kMaxTokenBytes) return Merge{};
      return scored.find(vocabulary_, piece.substr(begin, end - begin));
    });
  }
  emit(piece, scratch, ids);
}

std::optional<int32_t> BpeModel::find_piece(std::string_view piece) const {
  if (piece.size() > Vocabulary::kMaxTokenBytes) return std::nullopt;
  return vocabulary_.find_in_model(options_.byte_level ? to_byte_alphabet(piece)
                                                       : std::string(piece));
}

int32_t BpeModel::symbol_id(std::string_view symbol) const {
  if (options_.byte_level) return byte_ids_[static_cast<unsigned char>(symbol[0])];
  const std::optional<int32_t> id = vocabulary_.find_in_model(symbol);
  if (!id) return kNoId;
  const auto* scored = std::get_if<ScoredMerges>(&rules_);
  return scored == nullptr || scored->is_piece(*id) ? *id : kNoId;
}

void BpeModel::make_symbols(std::string_view piece, Scratch& scratch) const {
  auto& symbols = scratch.symbols_;
  symbols.clear();
  for (size_t begin = 0; begin < piece.size();) {
    const size_t size = options_.byte_level ? 1 : utf8_size(piece[begin]);
    const auto index = static_cast<uint32_t>(symbols.size());
    const std::string_view symbol = piece.substr(begin, size);
    const int32_t id = symbol_id(symbol);
    begin += size;
    if (id == kNoId && vanishes(symbol)) continue;
    symbols.push_back(
        {id, static_cast<uint32_t>(begin - size), index == 0 ? kNone : index - 1, index + 1});
  }
  if (!symbols.empty()) symbols.back().next = kNone;
}

template <typename FindMerge>
void BpeModel::merge_symbols(std::string_view piece,
                             Scratch& scratch,
                             const FindMerge& find_merge) const {
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  const auto end_of = [&](uint32_t symbol) {
    const uint32_t next = symbols[symbol].next;
    return next == kNone ? static_cast<uint32_t>(piece.size()) : symbols[next].begin;
  };
  // std heaps keep the largest on top: the best candidate is the one that no other comes before.
  const auto comes_later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto add_candidate = [&](uint32_t left) {
    const uint32_t right = left == kNone ? kNone : symbols[left].next;
    if (right == kNone) return false;
    const uint32_t end = end_of(right);
    const Merge merge = find_merge(left, right, end);
    if (merge.id < 0) return false;
    heap.push_back({merge.rank, left, end, merge.id});
    return true;
  };

  heap.clear();
  for (uint32_t i = 0; i < symbols.size(); ++i) add_candidate(i);
  std::make_heap(heap.begin(), heap.end(), comes_later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), comes_later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    // Symbols only grow, so a pair whose text has kept its end is still the same two symbols.
    const uint32_t right = symbols[best.left].next;
    if (symbols[best.left].id == kMerged || right == kNone || end_of(right) != best.end) continue;
    symbols[best.left].id = best.id;
    symbols[best.left].next = symbols[right].next;
    if (symbols[right].next != kNone) symbols[symbols[right].next].prev = best.left;
    symbols[right].id = kMerged;
    for (const uint32_t left : {symbols[best.left].prev, best.left}) {
      if (add_candidate(left)) std::push_heap(heap.begin(), heap.end(), comes_later);
    }
  }
}

void BpeModel::emit(std::string_view piece,
                    const Scratch& scratch,
                    std::vector<int32_t>& ids) const {
  bool after_unknown = false;
  for (uint32_t i = scratch.symbols_.empty() ? kNone : 0; i != kNone;) {
    const Scratch::Symbol& symbol = scratch.symbols_[i];
    i = symbol.next;
    if (symbol.id >= 0) {
      ids.push_back(symbol.id);
      after_unknown = false;
      continue;
    }
    // What has no token has not merged: it is one character.
    const auto character = piece.substr(symbol.begin, utf8_size(piece[symbol.begin]));
    if (has_byte_tokens(character)) {
      for (const char byte : character) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
      after_unknown = false;
    } else if (options_.unknown_id) {
      if (!after_unknown || !options_.fuse_unknown) ids.push_back(*options_.unknown_id);
      after_unknown = true;
    }
  }
}

bool BpeModel::has_byte_tokens(std::string_view character) const {
  return options_.byte_fallback && std::all_of(character.begin(), character.end(), [&](char byte) {
           return byte_ids_[static_cast<unsigned char>(byte)] != kNoId;
         });
}

std::string byte_token(unsigned char byte) {
  return fmt::format("<0x{:02X}>", byte);
}

std::optional<char> parse_byte_token(std::string_view token) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = digit(token[3]);
  const int low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

}  // namespace lamina
