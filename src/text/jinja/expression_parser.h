// Parses expressions: jinja2's grammar, level by level, lowest precedence first. Filters and tests
// that the subset lacks are refused here, by name.
#pragma once

#include <string>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace lamina::jinja {

// Of a call, and parameters of a macro: binding them compares every pair of names.
inline constexpr size_t kMaxArguments = 255;

// Whether `name` is a word of the grammar.
bool is_reserved(std::string_view name);

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  ExpressionPtr expression();
  // Expressions separated by commas are a tuple; `with_conditional` allows `a if b else c`.
  ExpressionPtr tuple(bool with_conditional = true);
  // What follows "|", on `input` or, if that is null, on what a block captures; null if no filter
  // follows.
  ExpressionPtr filters(ExpressionPtr input);
  // As filters(), with the first name directly here, as in {% filter upper %}.
  ExpressionPtr filter_block();
  // A name, or names in a tuple; `with_attribute` allows `namespace.attribute`.
  Target target(bool with_attribute);
  Target single_target(bool with_attribute);

 private:
  using Node = std::unique_ptr<Expression>;
  using Level = ExpressionPtr (ExpressionParser::*)();

  Node make(ExpressionKind kind) const;
  ExpressionPtr join(ExpressionKind kind, std::string_view name, Level operand);
  ExpressionPtr alternative();  // or
  ExpressionPtr conjunction();  // and
  ExpressionPtr negation();     // not
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr signed_value() { return unary(true); }
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr primary();
  ExpressionPtr name_or_constant();
  ExpressionPtr number();
  ExpressionPtr text();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr in_parentheses();
  ExpressionPtr postfix(ExpressionPtr value);
  ExpressionPtr filters_and_tests(ExpressionPtr value);
  ExpressionPtr attribute(ExpressionPtr object);
  ExpressionPtr subscript(ExpressionPtr object);
  ExpressionPtr call(ExpressionPtr function);
  ExpressionPtr filter(ExpressionPtr input);
  ExpressionPtr test(ExpressionPtr subject);
  void arguments(Expression& node);
  void check(const Token& at, const Expression& node);
  ExpressionPtr arithmetic(std::initializer_list<std::pair<std::string_view, Operator>> operators,
                           Level operand);
  bool take_operator(std::initializer_list<std::pair<std::string_view, Operator>> operators,
                     Operator& found);

  TokenStream& tokens_;
};

}  // namespace lamina::jinja
