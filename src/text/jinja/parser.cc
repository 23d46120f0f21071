#include "text/jinja/parser.h"

#include <array>
#include <initializer_list>
#include <string>
#include <utility>

#include "text/jinja/expression_parser.h"
#include "text/jinja/token_stream.h"

namespace lamina::jinja {
namespace {

class Parser {
 public:
  Parser(std::string_view source, int32_t max_depth)
      : tokens_(source, max_depth), expressions_(tokens_) {
    tokens_.name_id("loop");
    tokens_.name_id("caller");
  }

  Template run() {
    Template parsed;
    parsed.body = block({});
    parsed.names = tokens_.take_names();
    return parsed;
  }

 private:
  using Rule = Statement (Parser::*)();

  // Statements up to a tag named in `ends`, whose name is then the next token; up to the end of the
  // template if there are none.
  Block block(std::initializer_list<std::string_view> ends) {
    const Nesting nesting(tokens_);
    Block statements;
    for (;;) {
      switch (tokens_.peek().kind) {
        case TokenKind::kData:
          statements.push_back(text());
          break;
        case TokenKind::kOutputBegin:
          statements.push_back(output());
          break;
        case TokenKind::kBlockBegin: {
          const Token& name = tokens_.peek_next();
          if (name.kind == TokenKind::kName) {
            for (const std::string_view end : ends) {
              if (name.text == end) {
                tokens_.next();
                return statements;
              }
            }
          }
          statements.push_back(tag());
          break;
        }
        case TokenKind::kEnd:
          if (ends.size() == 0) return statements;
          tokens_.fail_here(fmt::format("expected '{{% {} %}}', found the end of the template",
                                        *(ends.end() - 1)));
        case TokenKind::kOutputEnd:
        case TokenKind::kBlockEnd:
        case TokenKind::kName:
        case TokenKind::kText:
        case TokenKind::kInteger:
        case TokenKind::kFloat:
        case TokenKind::kSymbol:
          tokens_.fail_here(fmt::format("unexpected {}", TokenStream::describe(tokens_.peek())));
      }
    }
  }

  // The body of a tag, with its end tag.
  Block body(std::string_view end) {
    end_tag();
    Block statements = block({end});
    tokens_.next();
    return statements;
  }

  void end_tag() { tokens_.expect(TokenKind::kBlockEnd, "'%}'"); }

  Statement make(StatementKind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = tokens_.peek().line;
    return statement;
  }

  Statement text() {
    Statement statement = make(StatementKind::kText);
    statement.text = tokens_.next().text;
    return statement;
  }

  Statement output() {
    tokens_.next();
    Statement statement = make(StatementKind::kOutput);
    statement.value = expressions_.tuple();
    tokens_.expect(TokenKind::kOutputEnd, "'}}'");
    return statement;
  }

  Statement tag() {
    static constexpr std::array<std::pair<std::string_view, Rule>, 10> kRules = {{
        {"if", &Parser::if_tag},
        {"for", &Parser::for_tag},
        {"set", &Parser::set_tag},
        {"macro", &Parser::macro_tag},
        {"call", &Parser::call_tag},
        {"filter", &Parser::filter_tag},
        {"with", &Parser::with_tag},
        {"generation", &Parser::generation_tag},
        {"break", &Parser::jump_tag},
        {"continue", &Parser::jump_tag},
    }};
    tokens_.next();
    if (!tokens_.is(TokenKind::kName)) {
      tokens_.fail_here(
          fmt::format("expected a tag's name, found {}", TokenStream::describe(tokens_.peek())));
    }
    const std::string name = tokens_.peek().text;
    for (const auto& [known, rule] : kRules) {
      if (known != name) continue;
      Statement statement = (this->*rule)();
      end_tag();
      return statement;
    }
    if (name.starts_with("end") || name == "else" || name == "elif")
      tokens_.fail_here(fmt::format("unexpected tag '{}'", name));
    tokens_.fail_here(fmt::format("tag '{}' is not supported", name));
  }

  Statement if_tag() {
    Statement statement = make(StatementKind::kIf);
    do {
      tokens_.next();
      Branch branch;
      branch.condition = expressions_.tuple(false);
      end_tag();
      branch.body = block({"elif", "else", "endif"});
      statement.branches.push_back(std::move(branch));
    } while (tokens_.is_name("elif"));
    if (tokens_.take_name("else")) {
      end_tag();
      statement.otherwise = block({"endif"});
    }
    tokens_.next();
    return statement;
  }

  Statement for_tag() {
    Statement statement = make(StatementKind::kFor);
    tokens_.next();
    statement.target = expressions_.target(false);
    if (!tokens_.take_name("in")) {
      tokens_.fail_here(
          fmt::format("expected 'in', found {}", TokenStream::describe(tokens_.peek())));
    }
    statement.value = expressions_.tuple(false);
    if (tokens_.take_name("if")) statement.condition = expressions_.expression();
    if (tokens_.is_name("recursive")) tokens_.fail_here("a recursive loop is not supported");
    end_tag();
    const bool was_in_loop = std::exchange(in_loop_, true);
    statement.body = block({"else", "endfor"});
    in_loop_ = was_in_loop;
    if (tokens_.take_name("else")) {
      end_tag();
      statement.otherwise = block({"endfor"});
    }
    tokens_.next();
    return statement;
  }

  Statement set_tag() {
    Statement statement = make(StatementKind::kSet);
    tokens_.next();
    statement.target = expressions_.target(true);
    if (tokens_.take_symbol("=")) {
      statement.value = expressions_.tuple();
      return statement;
    }
    statement.kind = StatementKind::kSetBlock;
    statement.value = expressions_.filters(nullptr);
    statement.body = captured_body("endset");
    return statement;
  }

  // A body whose text is captured: a loop around it cannot be left from inside.
  Block captured_body(std::string_view end) {
    const bool was_in_loop = std::exchange(in_loop_, false);
    Block statements = body(end);
    in_loop_ = was_in_loop;
    return statements;
  }

  std::vector<MacroParameter> parameters() {
    std::vector<MacroParameter> all;
    tokens_.expect_symbol("(");
    while (!tokens_.is_symbol(")")) {
      if (all.size() >= kMaxArguments)
        tokens_.fail_here(fmt::format("more than {} parameters", kMaxArguments));
      MacroParameter parameter;
      const Target target = expressions_.single_target(false);
      if (!target.parts.empty()) tokens_.fail_here("a macro's parameter is a name");
      parameter.name = target.name;
      parameter.name_id = target.name_id;
      if (tokens_.take_symbol("=")) {
        parameter.fallback = expressions_.expression();
      } else if (!all.empty() && all.back().fallback != nullptr) {
        tokens_.fail_here("a parameter without a default follows one that has one");
      }
      all.push_back(std::move(parameter));
      if (!tokens_.is_symbol(")")) tokens_.expect_symbol(",");
    }
    tokens_.expect_symbol(")");
    return all;
  }

  Statement macro_tag() {
    Statement statement = make(StatementKind::kMacro);
    tokens_.next();
    statement.target = expressions_.single_target(false);
    auto macro = std::make_unique<MacroDefinition>();
    macro->name = statement.target.name;
    macro->parameters = parameters();
    macro->body = captured_body("endmacro");
    if (tokens_.is_name(macro->name)) tokens_.next();  // {% endmacro name %}
    statement.macro = std::move(macro);
    return statement;
  }

  Statement call_tag() {
    Statement statement = make(StatementKind::kCallBlock);
    tokens_.next();
    auto caller = std::make_unique<MacroDefinition>();
    caller->name = "caller";
    if (tokens_.is_symbol("(")) caller->parameters = parameters();
    statement.value = expressions_.expression();
    if (statement.value->kind != ExpressionKind::kCall)
      tokens_.fail_here("a call block needs a call");
    caller->body = captured_body("endcall");
    statement.macro = std::move(caller);
    return statement;
  }

  Statement filter_tag() {
    Statement statement = make(StatementKind::kFilterBlock);
    tokens_.next();
    statement.value = expressions_.filter_block();
    statement.body = captured_body("endfilter");
    return statement;
  }

  Statement with_tag() {
    Statement statement = make(StatementKind::kWith);
    tokens_.next();
    while (!tokens_.is(TokenKind::kBlockEnd)) {
      if (!statement.assignments.empty()) tokens_.expect_symbol(",");
      Assignment assignment;
      assignment.target = expressions_.single_target(false);
      tokens_.expect_symbol("=");
      assignment.value = expressions_.expression();
      statement.assignments.push_back(std::move(assignment));
    }
    statement.body = body("endwith");
    return statement;
  }

  // Training marks what the assistant generates; for inference the block is its body.
  Statement generation_tag() {
    Statement statement = make(StatementKind::kScope);
    tokens_.next();
    statement.body = captured_body("endgeneration");
    return statement;
  }

  Statement jump_tag() {
    const bool is_break = tokens_.is_name("break");
    Statement statement = make(is_break ? StatementKind::kBreak : StatementKind::kContinue);
    if (!in_loop_) tokens_.fail_here(fmt::format("'{}' outside a loop", tokens_.peek().text));
    tokens_.next();
    return statement;
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  bool in_loop_ = false;
};

}  // namespace

Template parse_template(std::string_view source, int32_t max_depth) {
  const std::string normalised = normalise_newlines(source);
  return Parser(normalised, max_depth).run();
}

}  // namespace lamina::jinja
