// What expressions are made of: names, literals, collections; and what is stored to.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "text/jinja/expression_parser.h"

namespace lamina::jinja {
namespace {

// Names that jinja2 defines and the subset lacks: without this they would be undefined, silently.
bool is_unsupported(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kUnsupported = {
      "lipsum", "cycler", "joiner", "varargs", "kwargs", "self"};
  return std::find(kUnsupported.begin(), kUnsupported.end(), name) != kUnsupported.end();
}

}  // namespace

bool is_reserved(std::string_view name) {
  static constexpr std::array<std::string_view, 8> kReserved = {
      "if", "else", "elif", "in", "is", "and", "or", "not"};
  return std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end();
}

ExpressionPtr ExpressionParser::primary() {
  switch (tokens_.peek().kind) {
    case TokenKind::kName:
      return name_or_constant();
    case TokenKind::kText:
      return text();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return number();
    case TokenKind::kSymbol:
      if (tokens_.is_symbol("(")) return in_parentheses();
      if (tokens_.is_symbol("[")) return list();
      if (tokens_.is_symbol("{")) return dict();
      break;
    case TokenKind::kData:
    case TokenKind::kOutputBegin:
    case TokenKind::kOutputEnd:
    case TokenKind::kBlockBegin:
    case TokenKind::kBlockEnd:
    case TokenKind::kEnd:
      break;
  }
  tokens_.fail_here(
      fmt::format("expected an expression, found {}", TokenStream::describe(tokens_.peek())));
}

ExpressionPtr ExpressionParser::name_or_constant() {
  const std::string& name = tokens_.peek().text;
  if (is_reserved(name)) tokens_.fail_here(fmt::format("expected an expression, found '{}'", name));
  if (is_unsupported(name)) tokens_.fail_here(fmt::format("'{}' is not supported", name));
  Node node = make(ExpressionKind::kConstant);
  if (name == "true" || name == "True") {
    node->constant = Value(true);
  } else if (name == "false" || name == "False") {
    node->constant = Value(false);
  } else if (name != "none" && name != "None") {
    node->kind = ExpressionKind::kName;
    node->name = name;
    node->name_id = tokens_.name_id(name);
  }
  tokens_.next();
  return node;
}

ExpressionPtr ExpressionParser::number() {
  Node node = make(ExpressionKind::kConstant);
  const Token token = tokens_.next();
  if (token.kind == TokenKind::kFloat) {
    node->constant = Value(std::strtod(token.text.c_str(), nullptr));
    return node;
  }
  int64_t number = 0;
  const char* end = token.text.data() + token.text.size();
  if (std::from_chars(token.text.data(), end, number).ec != std::errc())
    tokens_.fail_token(token, fmt::format("integer {} exceeds 64 bits", token.text));
  node->constant = Value(number);
  return node;
}

// Texts side by side are one text.
ExpressionPtr ExpressionParser::text() {
  Node node = make(ExpressionKind::kConstant);
  std::string joined;
  while (tokens_.is(TokenKind::kText)) joined += tokens_.next().text;
  node->constant = Value(make_constant_text(std::move(joined)));
  return node;
}

ExpressionPtr ExpressionParser::list() {
  Node node = make(ExpressionKind::kList);
  tokens_.expect_symbol("[");
  while (!tokens_.is_symbol("]")) {
    node->operands.push_back(expression());
    if (!tokens_.is_symbol("]")) tokens_.expect_symbol(",");
  }
  tokens_.expect_symbol("]");
  return node;
}

ExpressionPtr ExpressionParser::dict() {
  Node node = make(ExpressionKind::kDict);
  tokens_.expect_symbol("{");
  while (!tokens_.is_symbol("}")) {
    node->operands.push_back(expression());
    tokens_.expect_symbol(":");
    node->operands.push_back(expression());
    if (!tokens_.is_symbol("}")) tokens_.expect_symbol(",");
  }
  tokens_.expect_symbol("}");
  return node;
}

ExpressionPtr ExpressionParser::in_parentheses() {
  Node empty = make(ExpressionKind::kTuple);
  tokens_.expect_symbol("(");
  if (tokens_.take_symbol(")")) return empty;
  ExpressionPtr value = tuple();
  tokens_.expect_symbol(")");
  return value;
}

Target ExpressionParser::single_target(bool with_attribute) {
  const Nesting nesting(tokens_);
  if (tokens_.take_symbol("(")) {
    Target inner = target(false);
    tokens_.expect_symbol(")");
    return inner;
  }
  const Token name = tokens_.expect(TokenKind::kName, "a name to store to");
  static constexpr std::array<std::string_view, 7> kConstants = {
      "true", "True", "false", "False", "none", "None", "loop"};
  if (is_reserved(name.text) || is_unsupported(name.text) ||
      std::find(kConstants.begin(), kConstants.end(), name.text) != kConstants.end())
    tokens_.fail_token(name, fmt::format("cannot store to '{}'", name.text));
  Target single;
  single.name = name.text;
  single.name_id = tokens_.name_id(name.text);
  if (with_attribute && tokens_.take_symbol("."))
    single.attribute = tokens_.expect(TokenKind::kName, "an attribute's name").text;
  return single;
}

Target ExpressionParser::target(bool with_attribute) {
  Target first = single_target(with_attribute);
  if (!tokens_.is_symbol(",") || !first.attribute.empty()) return first;
  Target tuple;
  tuple.parts.push_back(std::move(first));
  while (tokens_.take_symbol(",")) {
    if (tokens_.is_name("in") || tokens_.is_symbol("=") || tokens_.is_symbol(")")) break;
    tuple.parts.push_back(single_target(false));
  }
  return tuple;
}

}  // namespace lamina::jinja
