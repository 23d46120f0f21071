#include "server/openai/token_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include <nlohmann/json.hpp>

#include "text/tokenizer.h"

namespace lamina::server {

namespace {

using Json = nlohmann::ordered_json;

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

// JSON knows no infinity; clients read this as "impossible".
double json_logprob(float logprob) {
  constexpr double kImpossible = -9999.0;
  const double value = logprob;
  return value > kImpossible ? std::min(value, 0.0) : kImpossible;
}

Json token_bytes_json(const Tokenizer* tokenizer, int32_t id) {
  if (tokenizer == nullptr) return nullptr;
  Json bytes = Json::array();
  for (const char c : tokenizer->token_bytes(id)) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json chat_entry(const Tokenizer* tokenizer, int32_t id, float logprob) {
  Json entry;
  entry["token"] = token_text(tokenizer, id);
  entry["logprob"] = json_logprob(logprob);
  entry["bytes"] = token_bytes_json(tokenizer, id);
  return entry;
}

// Length of the well-formed character at the front of `text` (Unicode 15, table 3-7), 0 if none is.
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation(text[i])) return 0;
  }
  if (lead == 0xE0 && byte(1) < 0xA0) return 0;  // overlong
  if (lead == 0xED && byte(1) > 0x9F) return 0;  // surrogate
  if (lead == 0xF0 && byte(1) < 0x90) return 0;  // overlong
  if (lead == 0xF4 && byte(1) > 0x8F) return 0;  // above U+10FFFF
  return length;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = character_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string token_text(const Tokenizer* tokenizer, int32_t id) {
  if (tokenizer == nullptr) return fmt::format("token_id:{}", id);
  const std::string_view bytes = tokenizer->token_bytes(id);
  if (is_utf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

Json chat_logprob(const Tokenizer* tokenizer, const ScoredToken& token) {
  Json entry = chat_entry(tokenizer, token.id, token.logprob);
  Json top = Json::array();
  for (const TokenLogprob& other : token.top_logprobs) {
    top.push_back(chat_entry(tokenizer, other.id, other.logprob));
  }
  entry["top_logprobs"] = std::move(top);
  return entry;
}

struct CompletionLogprobs::Lists {
  Json tokens = Json::array();
  Json token_logprobs = Json::array();
  Json top_logprobs = Json::array();
  Json text_offset = Json::array();
};

CompletionLogprobs::CompletionLogprobs(const Tokenizer* tokenizer,
                                       bool skip_special_tokens,
                                       int64_t text_offset)
    : tokenizer_(tokenizer),
      skip_special_tokens_(skip_special_tokens),
      text_offset_(text_offset),
      lists_(std::make_unique<Lists>()) {}

CompletionLogprobs::~CompletionLogprobs() = default;

void CompletionLogprobs::add_text(int32_t id) {
  lists_->tokens.push_back(token_text(tokenizer_, id));
  lists_->text_offset.push_back(text_offset_);
  if (tokenizer_ == nullptr || (skip_special_tokens_ && tokenizer_->is_special(id))) return;
  const std::string_view bytes = tokenizer_->token_bytes(id);
  text_offset_ += std::count_if(bytes.begin(), bytes.end(), std::not_fn(is_continuation));
}

void CompletionLogprobs::add_unscored(int32_t id) {
  add_text(id);
  lists_->token_logprobs.push_back(nullptr);
  lists_->top_logprobs.push_back(nullptr);
}

void CompletionLogprobs::add(const ScoredToken& token) {
  add_text(token.id);
  lists_->token_logprobs.push_back(json_logprob(token.logprob));
  Json top = Json::object();
  for (const TokenLogprob& other : token.top_logprobs) {
    top.emplace(token_text(tokenizer_, other.id), json_logprob(other.logprob));
  }
  top.emplace(token_text(tokenizer_, token.id), json_logprob(token.logprob));
  lists_->top_logprobs.push_back(std::move(top));
}

Json CompletionLogprobs::take() {
  Json lists;
  lists["tokens"] = std::move(lists_->tokens);
  lists["token_logprobs"] = std::move(lists_->token_logprobs);
  lists["top_logprobs"] = std::move(lists_->top_logprobs);
  lists["text_offset"] = std::move(lists_->text_offset);
  *lists_ = Lists();
  return lists;
}

}  // namespace lamina::server
