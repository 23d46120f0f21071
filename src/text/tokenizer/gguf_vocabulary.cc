// Vocabularies from GGUF metadata: "llama" is SentencePiece style with scores; "gpt2" is byte-level
// with merges, and says by a name how text is split.
#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/tokenizer/bpe_tokenizer.h"
#include "text/tokenizer/scored_vocabulary.h"
#include "text/tokenizer/split_patterns.h"

namespace lamina {
namespace {

[[noreturn]] void fail(const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, message);
}

struct PreKind {
  std::span<const std::string_view> patterns;  // one after the other
  bool nfc = false;
  bool ignore_merges = false;
};

constexpr std::array<std::string_view, 1> kGpt2Split = {kGpt2Pattern};
constexpr std::array<std::string_view, 1> kLlama3Split = {kLlama3Pattern};
constexpr std::array<std::string_view, 1> kQwen2Split = {kQwen2Pattern};
constexpr std::array<std::string_view, 1> kTekkenSplit = {kTekkenPattern};
constexpr std::array<std::string_view, 2> kSmollmSplit = {kDigitPattern, kGpt2Pattern};

struct NamedPreKind {
  std::string_view name;
  PreKind kind;
};

constexpr NamedPreKind kPreKinds[] = {
    {"default", {kGgufDefaultPatterns}},
    {"gpt-2", {kGpt2Split}},
    {"phi-2", {kGpt2Split}},
    {"llama3", {kLlama3Split, false, true}},
    {"llama-v3", {kLlama3Split, false, true}},
    {"llama-bpe", {kLlama3Split, false, true}},
    {"qwen2", {kQwen2Split, true}},
    {"deepseek-r1-qwen", {kQwen2Split, true}},
    {"smollm", {kSmollmSplit}},
    {"starcoder", {kSmollmSplit}},
    {"refact", {kSmollmSplit}},
    {"command-r", {kSmollmSplit, true}},
    {"tekken", {kTekkenSplit, false, true}},
};

const PreKind& find_pre_kind(const std::string& name) {
  for (const NamedPreKind& entry : kPreKinds) {
    if (entry.name == (name.empty() ? "default" : std::string_view(name))) return entry.kind;
  }
  fail(fmt::format("pre-tokenizer {} is not supported", in_quotes(name)));
}

std::vector<PieceKind> piece_kinds(const GgufVocabulary& source) {
  if (source.token_types.empty()) {
    return std::vector<PieceKind>(source.tokens.size(), PieceKind::kNormal);
  }
  if (source.token_types.size() != source.tokens.size()) {
    fail(fmt::format(
        "{} tokens, but {} token types", source.tokens.size(), source.token_types.size()));
  }
  std::vector<PieceKind> kinds;
  kinds.reserve(source.token_types.size());
  for (const int32_t kind : source.token_types) kinds.push_back(to_piece_kind(kind));
  return kinds;
}

std::unique_ptr<Tokenizer> make_llama(const GgufVocabulary& source) {
  if (source.scores.size() != source.tokens.size()) {
    fail(fmt::format("{} tokens, but {} scores", source.tokens.size(), source.scores.size()));
  }
  return make_scored_tokenizer({.texts = source.tokens,
                                .scores = source.scores,
                                .kinds = piece_kinds(source),
                                .unknown_id = source.unknown_id,
                                .bos_id = source.bos_id,
                                .eos_id = source.eos_id,
                                .add_bos = source.add_bos,
                                .add_eos = source.add_eos,
                                .add_space_prefix = source.add_space_prefix});
}

PairMerges make_merges(const GgufVocabulary& source, const Vocabulary& vocabulary) {
  std::vector<PairMerges::Rule> rules;
  rules.reserve(source.merges.size());
  for (const std::string& merge : source.merges) {
    const std::string_view text = merge;
    const size_t space = text.find(' ');
    if (space == std::string_view::npos) {
      fail(fmt::format("merge {} is not \"left right\"", in_quotes(text)));
    }
    const auto left = text.substr(0, space);
    const auto right = text.substr(space + 1);
    const std::optional<int32_t> left_id = vocabulary.find(left);
    const std::optional<int32_t> right_id = vocabulary.find(right);
    const std::optional<int32_t> id = vocabulary.find(std::string(left).append(right));
    if (!left_id || !right_id || !id) {
      fail(fmt::format("merge {} is not in the vocabulary", in_quotes(text)));
    }
    rules.push_back({*left_id, *right_id, {static_cast<uint32_t>(rules.size()), *id}});
  }
  return {std::move(rules), vocabulary.size()};
}

std::vector<PreTokenizerStep> make_splits(const PreKind& kind) {
  std::vector<PreTokenizerStep> steps;
  for (const std::string_view pattern : kind.patterns) {
    steps.emplace_back(SplitStep{SplitPattern(pattern, SplitPattern::Syntax::kRegex)});
  }
  return steps;
}

// Control tokens, and those that a user of the vocabulary added.
std::vector<AddedToken> make_added_tokens(const GgufVocabulary& source) {
  std::vector<AddedToken> added;
  const std::vector<PieceKind> kinds = piece_kinds(source);
  for (size_t id = 0; id < kinds.size(); ++id) {
    const bool special = kinds[id] == PieceKind::kControl || kinds[id] == PieceKind::kUnknown;
    if (!special && kinds[id] != PieceKind::kUserDefined) continue;
    added.push_back(
        {.content = source.tokens[id], .id = static_cast<int32_t>(id), .special = special});
  }
  return added;
}

std::unique_ptr<Tokenizer> make_byte_level(const GgufVocabulary& source) {
  const PreKind& kind = find_pre_kind(source.pre);
  check_token_id(source.unknown_id, source.tokens.size(), "unknown");
  check_token_id(source.bos_id, source.tokens.size(), "BOS");
  check_token_id(source.eos_id, source.tokens.size(), "EOS");
  const std::vector<PieceKind> kinds = piece_kinds(source);
  Vocabulary vocabulary;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    if (kinds[id] == PieceKind::kControl) {
      vocabulary.add_outside_model(source.tokens[id], static_cast<int64_t>(id));
    } else {
      vocabulary.add(source.tokens[id], static_cast<int64_t>(id));
    }
  }
  PairMerges merges = make_merges(source, vocabulary);
  std::vector<NormalizerStep> normalizer;
  if (kind.nfc) normalizer.emplace_back(NfcStep{});
  TokenizerParts parts{.model = BpeModel(std::move(vocabulary),
                                         std::move(merges),
                                         {.byte_level = true,
                                          .ignore_merges = kind.ignore_merges,
                                          .unknown_id = source.unknown_id}),
                       .added_tokens = make_added_tokens(source),
                       .normalizer = Normalizer(std::move(normalizer)),
                       .pre_tokenizer = PreTokenizer(make_splits(kind)),
                       .decoding = {},
                       .prefix_ids = {},
                       .suffix_ids = {},
                       .bos_id = source.bos_id,
                       .eos_id = source.eos_id};
  if (source.add_bos && source.bos_id) parts.prefix_ids.push_back(*source.bos_id);
  if (source.add_eos && source.eos_id) parts.suffix_ids.push_back(*source.eos_id);
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufVocabulary& vocabulary) {
  if (vocabulary.tokens.empty()) fail("a vocabulary without tokens");
  if (vocabulary.model == "llama") return make_llama(vocabulary);
  if (vocabulary.model == "gpt2") return make_byte_level(vocabulary);
  fail(fmt::format("tokenizer model {} is not supported", in_quotes(vocabulary.model)));
}

}  // namespace lamina
