// How single tokens and ids show in answers: their text, bytes and logprobs. Used by response.cc
// and the tokenize endpoint. Pure; a null tokenizer stands for --skip-tokenizer-init.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "engine/engine.h"

namespace lamina {
class Tokenizer;
}

namespace lamina::server {

[[nodiscard]] bool is_utf8(std::string_view text);
// The token's text; "bytes:\xe2\x80" for a part of a character, so that no two tokens of a
// distribution look the same; "token_id:7" without a tokenizer.
std::string token_text(const Tokenizer* tokenizer, int32_t id);

// One token of the list in a chat choice's logprobs.
nlohmann::ordered_json chat_logprob(const Tokenizer* tokenizer, const ScoredToken& token);

// The legacy logprobs object of /v1/completions: parallel lists over tokens.
class CompletionLogprobs {
 public:
  // `text_offset`: code points of the choice's text before the first token. Special tokens have no
  // extent if they are skipped in the text.
  CompletionLogprobs(const Tokenizer* tokenizer, bool skip_special_tokens, int64_t text_offset);
  ~CompletionLogprobs();
  CompletionLogprobs(const CompletionLogprobs&) = delete;
  CompletionLogprobs& operator=(const CompletionLogprobs&) = delete;

  // A token that nothing predicts: the first of a prompt.
  void add_unscored(int32_t id);
  void add(const ScoredToken& token);
  [[nodiscard]] int64_t text_offset() const { return text_offset_; }
  // {"tokens","token_logprobs","top_logprobs","text_offset"}; leaves this empty.
  nlohmann::ordered_json take();

 private:
  struct Lists;
  void add_text(int32_t id);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  int64_t text_offset_;
  std::unique_ptr<Lists> lists_;
};

}  // namespace lamina::server
