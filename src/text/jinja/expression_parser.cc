// The grammar from the lowest precedence down to a sign.
#include "text/jinja/expression_parser.h"

namespace lamina::jinja {

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

}  // namespace lamina::jinja
