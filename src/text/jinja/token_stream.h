// TokenStream: what the parsers read from: one token of look-ahead, names turned into ids, and the
// nesting limit that keeps hostile templates from exhausting the stack.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/lexer.h"

namespace lamina::jinja {

class TokenStream {
 public:
  TokenStream(std::string_view source, int32_t max_depth)
      : source_(source), tokens_(tokenize(source)), max_depth_(max_depth) {}

  [[nodiscard]] const Token& peek() const { return tokens_[at_]; }
  [[nodiscard]] const Token& peek_next() const {
    return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_];
  }
  Token next() {
    Token token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }

  [[nodiscard]] bool is(TokenKind kind) const { return peek().kind == kind; }
  [[nodiscard]] bool is_symbol(std::string_view symbol) const {
    return is(TokenKind::kSymbol) && peek().text == symbol;
  }
  [[nodiscard]] bool is_name(std::string_view name) const {
    return is(TokenKind::kName) && peek().text == name;
  }
  bool take_symbol(std::string_view symbol) { return is_symbol(symbol) && (next(), true); }
  bool take_name(std::string_view name) { return is_name(name) && (next(), true); }

  Token expect(TokenKind kind, std::string_view what) {
    if (!is(kind)) fail_here(fmt::format("expected {}, found {}", what, describe(peek())));
    return next();
  }
  void expect_symbol(std::string_view symbol) {
    if (!take_symbol(symbol))
      fail_here(fmt::format("expected '{}', found {}", symbol, describe(peek())));
  }

  [[noreturn]] void fail_here(const std::string& message) const { fail_token(peek(), message); }
  [[noreturn]] void fail_token(const Token& token, const std::string& message) const {
    fail_at(source_, token.offset, message);
  }
  static std::string describe(const Token& token);

  int32_t name_id(const std::string& name) {
    const auto [found, is_new] = ids_.try_emplace(name, static_cast<int32_t>(names_.size()));
    if (is_new) names_.push_back(name);
    return found->second;
  }
  std::vector<std::string> take_names() { return std::move(names_); }

  void enter() {
    if (++depth_ > max_depth_)
      fail_here(fmt::format("the template is nested deeper than {}", max_depth_));
  }
  void leave() { --depth_; }

 private:
  std::string_view source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int32_t max_depth_;
  int32_t depth_ = 0;
  std::vector<std::string> names_;
  std::unordered_map<std::string, int32_t> ids_;
};

// One level of nesting, for as long as it lives.
class Nesting {
 public:
  explicit Nesting(TokenStream& tokens) : tokens_(tokens) { tokens_.enter(); }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;
  ~Nesting() { tokens_.leave(); }

 private:
  TokenStream& tokens_;
};

}  // namespace lamina::jinja
