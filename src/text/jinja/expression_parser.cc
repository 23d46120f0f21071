#include "text/jinja/expression_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

namespace lamina::jinja {
namespace {

bool is_reserved(std::string_view name) {
  static constexpr std::array<std::string_view, 8> kReserved = {
      "if", "else", "elif", "in", "is", "and", "or", "not"};
  return std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end();
}

// Names that jinja2 defines and the subset lacks: without this they would be undefined, silently.
bool is_unsupported(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kUnsupported = {
      "lipsum", "cycler", "joiner", "varargs", "kwargs", "self"};
  return std::find(kUnsupported.begin(), kUnsupported.end(), name) != kUnsupported.end();
}

}  // namespace

std::string TokenStream::describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kOutputBegin:
      return "'{{'";
    case TokenKind::kOutputEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kText:
      return "a quoted text";
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kName:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
    case TokenKind::kSymbol:
      return fmt::format("'{}'", token.text);
  }
  return "?";
}

ExpressionParser::Node ExpressionParser::make(ExpressionKind kind) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = tokens_.peek().line;
  return node;
}

ExpressionPtr ExpressionParser::expression() {
  const Nesting nesting(tokens_);
  ExpressionPtr value = alternative();
  int levels = 0;
  for (; tokens_.take_name("if"); ++levels) {
    Node node = make(ExpressionKind::kConditional);
    node->operands.push_back(alternative());
    node->operands.push_back(std::move(value));
    node->operands.push_back(tokens_.take_name("else") ? expression() : nullptr);
    value = std::move(node);
    tokens_.enter();
  }
  for (; levels > 0; --levels) tokens_.leave();
  return value;
}

ExpressionPtr ExpressionParser::tuple(bool with_conditional) {
  const auto item = [&] { return with_conditional ? expression() : alternative(); };
  ExpressionPtr first = item();
  if (!tokens_.is_symbol(",")) return first;
  Node node = make(ExpressionKind::kTuple);
  node->operands.push_back(std::move(first));
  while (tokens_.take_symbol(",")) {
    const bool ends = tokens_.is(TokenKind::kOutputEnd) || tokens_.is(TokenKind::kBlockEnd) ||
                      tokens_.is_symbol(")") || tokens_.is_symbol("]");
    if (ends) break;
    node->operands.push_back(item());
  }
  return node;
}

ExpressionPtr ExpressionParser::join(ExpressionKind kind, std::string_view name, Level operand) {
  ExpressionPtr first = (this->*operand)();
  if (!tokens_.is_name(name)) return first;
  Node node = make(kind);
  node->operands.push_back(std::move(first));
  while (tokens_.take_name(name)) node->operands.push_back((this->*operand)());
  return node;
}

ExpressionPtr ExpressionParser::alternative() {
  return join(ExpressionKind::kOr, "or", &ExpressionParser::conjunction);
}

ExpressionPtr ExpressionParser::conjunction() {
  return join(ExpressionKind::kAnd, "and", &ExpressionParser::negation);
}

ExpressionPtr ExpressionParser::negation() {
  if (!tokens_.is_name("not")) return comparison();
  const Nesting nesting(tokens_);
  Node node = make(ExpressionKind::kNot);
  tokens_.next();
  node->operands.push_back(negation());
  return node;
}

bool ExpressionParser::take_operator(
    std::initializer_list<std::pair<std::string_view, Operator>> operators, Operator& found) {
  for (const auto& [symbol, op] : operators) {
    if (!tokens_.take_symbol(symbol)) continue;
    found = op;
    return true;
  }
  return false;
}

ExpressionPtr ExpressionParser::comparison() {
  ExpressionPtr first = sum();
  Node node;
  for (;;) {
    Operator op{};
    if (tokens_.take_name("in")) {
      op = Operator::kIn;
    } else if (tokens_.is_name("not") && tokens_.peek_next().kind == TokenKind::kName &&
               tokens_.peek_next().text == "in") {
      tokens_.next();
      tokens_.next();
      op = Operator::kNotIn;
    } else if (!take_operator({{"==", Operator::kEqual},
                               {"!=", Operator::kNotEqual},
                               {"<=", Operator::kLessOrEqual},
                               {">=", Operator::kGreaterOrEqual},
                               {"<", Operator::kLess},
                               {">", Operator::kGreater}},
                              op)) {
      break;
    }
    if (node == nullptr) {
      node = make(ExpressionKind::kCompare);
      node->operands.push_back(std::move(first));
    }
    node->operators.push_back(op);
    node->operands.push_back(sum());
  }
  if (node == nullptr) return first;
  return node;
}

ExpressionPtr ExpressionParser::arithmetic(
    std::initializer_list<std::pair<std::string_view, Operator>> operators, Level operand) {
  ExpressionPtr first = (this->*operand)();
  Node node;
  for (Operator op{}; take_operator(operators, op);) {
    if (node == nullptr) {
      node = make(ExpressionKind::kArithmetic);
      node->operands.push_back(std::move(first));
    }
    node->operators.push_back(op);
    node->operands.push_back((this->*operand)());
  }
  if (node == nullptr) return first;
  return node;
}

ExpressionPtr ExpressionParser::sum() {
  return arithmetic({{"+", Operator::kAdd}, {"-", Operator::kSubtract}},
                    &ExpressionParser::concatenation);
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr first = product();
  if (!tokens_.is_symbol("~")) return first;
  Node node = make(ExpressionKind::kConcat);
  node->operands.push_back(std::move(first));
  while (tokens_.take_symbol("~")) node->operands.push_back(product());
  return node;
}

ExpressionPtr ExpressionParser::product() {
  return arithmetic({{"*", Operator::kMultiply},
                     {"//", Operator::kFloorDivide},
                     {"/", Operator::kDivide},
                     {"%", Operator::kModulo}},
                    &ExpressionParser::power);
}

// From the left, as in jinja2 and unlike Python.
ExpressionPtr ExpressionParser::power() {
  return arithmetic({{"**", Operator::kPower}}, &ExpressionParser::signed_value);
}

// jinja2 binds a sign closer than a filter: -1|abs is (-1)|abs.
ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Nesting nesting(tokens_);
  ExpressionPtr value;
  if (tokens_.is_symbol("-") || tokens_.is_symbol("+")) {
    Node node = make(ExpressionKind::kNegate);
    const bool negates = tokens_.next().text == "-";
    if (!negates) tokens_.fail_here("unary + is not supported");
    node->operands.push_back(unary(false));
    value = std::move(node);
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  return with_filters ? filters_and_tests(std::move(value)) : std::move(value);
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

ExpressionPtr ExpressionParser::postfix(ExpressionPtr value) {
  int levels = 0;
  for (;; ++levels) {
    if (tokens_.is_symbol(".")) {
      value = attribute(std::move(value));
    } else if (tokens_.is_symbol("[")) {
      value = subscript(std::move(value));
    } else if (tokens_.is_symbol("(")) {
      value = call(std::move(value));
    } else {
      break;
    }
    tokens_.enter();  // a chain is a deep tree, though it reads flat
  }
  for (; levels > 0; --levels) tokens_.leave();
  return value;
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr value) {
  int levels = 0;
  for (;; ++levels) {
    if (tokens_.take_symbol("|")) {
      value = filter(std::move(value));
    } else if (tokens_.take_name("is")) {
      value = test(std::move(value));
    } else if (tokens_.is_symbol("(")) {
      value = call(std::move(value));
    } else {
      break;
    }
    tokens_.enter();
  }
  for (; levels > 0; --levels) tokens_.leave();
  return value;
}

ExpressionPtr ExpressionParser::attribute(ExpressionPtr object) {
  Node node = make(ExpressionKind::kAttribute);
  tokens_.expect_symbol(".");
  if (tokens_.is(TokenKind::kInteger)) {
    node->kind = ExpressionKind::kItem;
    node->operands.push_back(std::move(object));
    node->operands.push_back(number());
    return node;
  }
  node->name = tokens_.expect(TokenKind::kName, "an attribute's name").text;
  node->operands.push_back(std::move(object));
  return node;
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr object) {
  Node node = make(ExpressionKind::kItem);
  tokens_.expect_symbol("[");
  node->operands.push_back(std::move(object));
  if (!tokens_.is_symbol(":")) node->operands.push_back(expression());
  if (tokens_.is_symbol(":")) {
    node->kind = ExpressionKind::kSlice;
    node->operands.resize(2);
    for (int bound = 0; bound < 2; ++bound) {
      const bool has_more = tokens_.take_symbol(":");
      const bool has_value = has_more && !tokens_.is_symbol(":") && !tokens_.is_symbol("]");
      node->operands.push_back(has_value ? expression() : nullptr);
    }
  }
  if (tokens_.is_symbol(",")) tokens_.fail_here("a tuple as subscript is not supported");
  tokens_.expect_symbol("]");
  return node;
}

void ExpressionParser::arguments(Expression& node) {
  tokens_.expect_symbol("(");
  while (!tokens_.is_symbol(")")) {
    if (node.operands.size() + node.named.size() > kMaxArguments)
      tokens_.fail_here(fmt::format("more than {} arguments", kMaxArguments));
    if (tokens_.is_symbol("*") || tokens_.is_symbol("**"))
      tokens_.fail_here(
          fmt::format("'{}' before an argument is not supported", tokens_.peek().text));
    const bool is_named = tokens_.is(TokenKind::kName) &&
                          tokens_.peek_next().kind == TokenKind::kSymbol &&
                          tokens_.peek_next().text == "=";
    if (is_named) {
      std::string name = tokens_.next().text;
      for (const NamedArgument& other : node.named)
        if (other.name == name) tokens_.fail_here(fmt::format("argument '{}' comes twice", name));
      tokens_.next();
      node.named.push_back({std::move(name), expression()});
    } else {
      if (!node.named.empty()) tokens_.fail_here("a positional argument follows a named one");
      node.operands.push_back(expression());
    }
    if (!tokens_.is_symbol(")")) tokens_.expect_symbol(",");
  }
  tokens_.expect_symbol(")");
}

ExpressionPtr ExpressionParser::call(ExpressionPtr function) {
  Node node = make(ExpressionKind::kCall);
  node->operands.push_back(std::move(function));
  arguments(*node);
  return node;
}

void ExpressionParser::check(const Token& at, const Expression& node) {
  std::vector<std::string> names;
  for (const NamedArgument& argument : node.named) names.push_back(argument.name);
  const std::string problem = check_arguments(*node.builtin, node.operands.size() - 1, names);
  if (!problem.empty()) tokens_.fail_token(at, problem);
}

ExpressionPtr ExpressionParser::filter(ExpressionPtr input) {
  Node node = make(ExpressionKind::kFilter);
  const Token name = tokens_.expect(TokenKind::kName, "a filter's name");
  node->builtin = find_filter(name.text);
  if (node->builtin == nullptr || tokens_.is_symbol("."))
    tokens_.fail_token(name, fmt::format("filter '{}' is not supported", name.text));
  node->operands.push_back(std::move(input));
  if (tokens_.is_symbol("(")) arguments(*node);
  check(name, *node);
  return node;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr input) {
  int levels = 0;
  for (; tokens_.take_symbol("|"); ++levels) {
    input = filter(std::move(input));
    tokens_.enter();
  }
  for (; levels > 0; --levels) tokens_.leave();
  return input;
}

ExpressionPtr ExpressionParser::filter_block() {
  return filters(filter(nullptr));
}

ExpressionPtr ExpressionParser::test(ExpressionPtr subject) {
  Node node = make(ExpressionKind::kTest);
  const bool is_negated = tokens_.take_name("not");
  const Token name = tokens_.expect(TokenKind::kName, "a test's name");
  node->builtin = find_test(name.text);
  if (node->builtin == nullptr || tokens_.is_symbol("."))
    tokens_.fail_token(name, fmt::format("test '{}' is not supported", name.text));
  node->operands.push_back(std::move(subject));
  const bool starts_value = tokens_.is(TokenKind::kText) || tokens_.is(TokenKind::kInteger) ||
                            tokens_.is(TokenKind::kFloat) || tokens_.is_symbol("[") ||
                            tokens_.is_symbol("{") ||
                            (tokens_.is(TokenKind::kName) && !is_reserved(tokens_.peek().text));
  if (tokens_.is_symbol("(")) {
    arguments(*node);
  } else if (tokens_.is_name("is")) {
    tokens_.fail_here("tests cannot be chained");
  } else if (starts_value) {
    node->operands.push_back(postfix(primary()));
  }
  check(name, *node);
  if (!is_negated) return node;
  Node inverse = make(ExpressionKind::kNot);
  inverse->operands.push_back(std::move(node));
  return inverse;
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
