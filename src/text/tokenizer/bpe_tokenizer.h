// BpeTokenizer: the whole way from text to ids: added tokens, normalizer, pre-tokenizer, merges,
// BOS and EOS. The loaders (tokenizer_json, sentencepiece_model, gguf_vocabulary) fill its parts.
// Immutable, safe to use from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe_model.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/pre_tokenizer.h"

namespace lamina {

// How ids become bytes again.
struct Decoding {
  std::vector<ReplaceStep> replacements;  // in every token's text: U+2581 becomes a space
  bool byte_fallback = false;             // "<0xE4>" is one byte
  bool strips_leading_space = false;
};

struct TokenizerParts {
  BpeModel model;
  std::vector<AddedToken> added_tokens;  // their texts are in the model's vocabulary
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Decoding decoding;
  std::vector<int32_t> prefix_ids;  // BOS, usually
  std::vector<int32_t> suffix_ids;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

class BpeTokenizer final : public Tokenizer {
 public:
  static constexpr size_t kMaxTextBytes = size_t{16} << 20;

  // Throws Error kInvalidArgument.
  explicit BpeTokenizer(TokenizerParts parts);

  [[nodiscard]] Result<std::vector<int32_t>> encode(std::string_view text,
                                                    const EncodeOptions& options) const override;
  [[nodiscard]] std::string_view token_bytes(int32_t id) const override;
  [[nodiscard]] bool strips_leading_space() const override {
    return parts_.decoding.strips_leading_space;
  }
  [[nodiscard]] bool is_special(int32_t id) const override;
  [[nodiscard]] std::optional<int32_t> find(std::string_view token) const override;
  [[nodiscard]] int32_t vocab_size() const override { return parts_.model.vocabulary().size(); }
  [[nodiscard]] std::optional<int32_t> bos_id() const override { return parts_.bos_id; }
  [[nodiscard]] std::optional<int32_t> eos_id() const override { return parts_.eos_id; }

 private:
  void fill_token_bytes();
  // Text without added tokens that are looked for before normalisation.
  [[nodiscard]] Status encode_raw(std::string_view text,
                                  bool parse_special,
                                  bool at_start,
                                  BpeModel::Scratch& scratch,
                                  std::vector<int32_t>& ids) const;

  TokenizerParts parts_;
  AddedTokens raw_tokens_;         // looked for in the text as it comes
  AddedTokens normalized_tokens_;  // looked for in normalised text
  std::vector<std::string> token_bytes_;
  std::vector<bool> special_;
};

}  // namespace lamina
