// What follows an operand: attributes, subscripts, calls, filters and tests.
#include "text/jinja/expression_parser.h"

namespace lamina::jinja {

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
    if (tokens_.is_symbol("*") || tokens_.is_symbol("**")) {
      tokens_.fail_here(
          fmt::format("'{}' before an argument is not supported", tokens_.peek().text));
    }
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
  names.reserve(node.named.size());
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

}  // namespace lamina::jinja
