#include "text/tokenizer/scored_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace lamina {
namespace {

constexpr const char* kEscapedSpace = "\u2581";

// Rank 0 for the best score; equal scores share a rank, so that the leftmost pair wins.
ScoredMerges rank_pieces(const ScoredVocabulary& source) {
  std::vector<int32_t> mergeable;
  for (size_t id = 0; id < source.texts.size(); ++id) {
    if (std::isnan(source.scores[id])) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("the score of token {} is not a number", id));
    }
    if (source.kinds[id] == PieceKind::kNormal) mergeable.push_back(static_cast<int32_t>(id));
  }
  const auto score = [&](int32_t id) { return source.scores[static_cast<size_t>(id)]; };
  std::sort(mergeable.begin(), mergeable.end(), [&](int32_t a, int32_t b) {
    return score(a) > score(b);
  });
  std::vector<uint32_t> ranks(source.texts.size(), ScoredMerges::kNeverMerged);
  uint32_t rank = 0;
  for (size_t i = 0; i < mergeable.size(); ++i) {
    if (i > 0 && score(mergeable[i]) < score(mergeable[i - 1])) ++rank;
    ranks[static_cast<size_t>(mergeable[i])] = rank;
  }
  return ScoredMerges(std::move(ranks));
}

std::vector<AddedToken> collect_added_tokens(const ScoredVocabulary& source) {
  std::vector<AddedToken> added;
  for (size_t id = 0; id < source.texts.size(); ++id) {
    const PieceKind kind = source.kinds[id];
    const bool user_defined = kind == PieceKind::kUserDefined;
    if (!user_defined && kind != PieceKind::kControl && kind != PieceKind::kUnknown) continue;
    AddedToken token{.content = source.texts[id],
                     .id = static_cast<int32_t>(id),
                     .special = !user_defined,
                     .normalized = user_defined && source.user_defined_normalized};
    if (user_defined && !token.normalized) {
      token.content = replace_all(token.content, kEscapedSpace, " ");
    }
    added.push_back(std::move(token));
  }
  return added;
}

}  // namespace

PieceKind to_piece_kind(int32_t kind) {
  if (kind < static_cast<int32_t>(PieceKind::kNormal) ||
      kind > static_cast<int32_t>(PieceKind::kByte)) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("token type {} is not known", kind));
  }
  return static_cast<PieceKind>(kind);
}

void check_token_id(const std::optional<int32_t>& id, size_t vocab_size, const char* what) {
  if (id && (*id < 0 || static_cast<size_t>(*id) >= vocab_size)) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("{} id {} is not in the vocabulary of {}", what, *id, vocab_size));
  }
}

std::unique_ptr<Tokenizer> make_scored_tokenizer(const ScoredVocabulary& source) {
  check_token_id(source.unknown_id, source.texts.size(), "unknown");
  check_token_id(source.bos_id, source.texts.size(), "BOS");
  check_token_id(source.eos_id, source.texts.size(), "EOS");
  Vocabulary vocabulary;
  for (size_t id = 0; id < source.texts.size(); ++id) {
    vocabulary.add(source.texts[id], static_cast<int64_t>(id));
  }
  std::vector<NormalizerStep> normalizer;
  if (source.add_space_prefix) normalizer.emplace_back(PrependStep{kEscapedSpace});
  normalizer.emplace_back(ReplaceStep{" ", kEscapedSpace});
  TokenizerParts parts{.model = BpeModel(std::move(vocabulary),
                                         rank_pieces(source),
                                         {.byte_fallback = source.byte_fallback,
                                          .fuse_unknown = true,
                                          .unknown_id = source.unknown_id}),
                       .added_tokens = collect_added_tokens(source),
                       .normalizer = Normalizer(std::move(normalizer)),
                       .pre_tokenizer = {},
                       .decoding = {.replacements = {{kEscapedSpace, " "}},
                                    .byte_fallback = true,
                                    .strips_leading_space = source.add_space_prefix},
                       .prefix_ids = {},
                       .suffix_ids = {},
                       .bos_id = source.bos_id,
                       .eos_id = source.eos_id};
  if (source.add_bos && source.bos_id) parts.prefix_ids.push_back(*source.bos_id);
  if (source.add_eos && source.eos_id) parts.suffix_ids.push_back(*source.eos_id);
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace lamina
