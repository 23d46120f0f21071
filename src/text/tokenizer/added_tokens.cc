#include "text/tokenizer/added_tokens.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/tokenizer/utf8.h"
#include "text/tokenizer/vocabulary.h"

namespace lamina {
namespace {

uint64_t edge_key(uint32_t node, char byte) {
  return (static_cast<uint64_t>(node) << 8) | static_cast<unsigned char>(byte);
}

// Unicode White_Space.
bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  if (c == 0x85) return true;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

// Where the white space that ends at `end` starts, no earlier than `floor`.
size_t space_start(std::string_view text, size_t floor, size_t end) {
  while (end > floor) {
    size_t begin = end - 1;
    while (begin > floor && (static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80) --begin;
    if (!is_space(decode_utf8(text, begin))) break;
    end = begin;
  }
  return end;
}

size_t space_end(std::string_view text, size_t begin) {
  while (begin < text.size() && is_space(decode_utf8(text, begin))) begin += utf8_size(text[begin]);
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  token_of_node_.push_back(kNoToken);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].content.size() > kMaxContentBytes) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("added token {} has {} bytes, the limit is {}",
                              in_quotes(tokens_[i].content),
                              tokens_[i].content.size(),
                              kMaxContentBytes));
    }
    if (!tokens_[i].content.empty()) insert(i);
  }
}

void AddedTokens::insert(size_t token_idx) {
  const std::string& content = tokens_[token_idx].content;
  first_byte_[static_cast<unsigned char>(content[0])] = true;
  uint32_t node = 0;
  for (const char byte : content) {
    const auto next = static_cast<uint32_t>(token_of_node_.size());
    const auto [edge, inserted] = edges_.try_emplace(edge_key(node, byte), next);
    if (inserted) token_of_node_.push_back(kNoToken);
    node = edge->second;
  }
  if (token_of_node_[node] == kNoToken) token_of_node_[node] = static_cast<int32_t>(token_idx);
}

const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  if (!first_byte_[static_cast<unsigned char>(text[0])]) return nullptr;
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto edge = edges_.find(edge_key(node, byte));
    if (edge == edges_.end()) break;
    node = edge->second;
    const int32_t token_idx = token_of_node_[node];
    if (token_idx != kNoToken) longest = &tokens_[static_cast<size_t>(token_idx)];
  }
  return longest;
}

// As the reference does, matches are found in the text as it is, and swallow white space after
// that: a token of white space is there even where the one before it swallowed that.
std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, bool parse_special) const {
  std::vector<Part> parts;
  size_t plain_begin = 0;
  size_t spaces_end =
      0;  // of white space walked over: walked once, however many tokens stand in it
  size_t position = 0;
  while (position < text.size()) {
    const AddedToken* token = longest_at(text.substr(position));
    if (token == nullptr) {
      ++position;
      continue;
    }
    const size_t match_begin = position;
    position += token->content.size();
    if (token->special && !parse_special) continue;
    if (token->lstrip && position <= plain_begin) continue;  // nothing is left of it
    const size_t begin = token->lstrip ? space_start(text, plain_begin, match_begin) : match_begin;
    if (begin > plain_begin) {
      parts.push_back({text.substr(plain_begin, begin - plain_begin), kNoToken});
    }
    if (token->rstrip && position >= spaces_end) spaces_end = space_end(text, position);
    plain_begin = token->rstrip ? spaces_end : position;
    parts.push_back({text.substr(begin, plain_begin - begin), token->id});
  }
  if (plain_begin < text.size()) parts.push_back({text.substr(plain_begin), kNoToken});
  return parts;
}

}  // namespace lamina
