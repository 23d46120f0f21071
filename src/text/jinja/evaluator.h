// Evaluator: runs one parsed template over one context. evaluator.cc runs statements,
// expressions.cc evaluates expressions. Throws Error: kInvalidArgument for what the template gets
// wrong (with its line), kResourceExhausted past a limit, TemplateRaised. Confined to one thread,
// used once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace lamina::jinja {

class Evaluator {
 public:
  // `context` is a dict.
  Evaluator(Runtime& runtime, const Template& parsed, const Value& context);

  std::string run();
  // Where the evaluation is, or failed.
  [[nodiscard]] int32_t line() const { return line_; }

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  Flow run_block(const Block& block);
  Flow run_statement(const Statement& statement);
  Flow run_if(const Statement& statement);
  Flow run_for(const Statement& statement);
  Flow run_scoped(const Statement& statement);
  void run_set_block(const Statement& statement);
  void run_macro(const Statement& statement);
  void run_call_block(const Statement& statement);
  SequencePtr loop_items(const Statement& statement);
  // The text that `block` writes, in a scope of its own.
  Value capture(const Block& block);
  void assign(const Target& target, const Value& value);

  Value evaluate(const Expression& expression);
  Value evaluate_or_none(const ExpressionPtr& expression);
  Value name(const Expression& expression);
  Value collection(const Expression& expression);
  Value dict(const Expression& expression);
  Value slice(const Expression& expression);
  Value arithmetic_chain(const Expression& expression);
  Value concat(const Expression& expression);
  Value logical(const Expression& expression);
  Value compare_chain(const Expression& expression);
  Value conditional(const Expression& expression);
  Value filter_or_test(const Expression& expression);
  Arguments arguments(const Expression& expression);
  Value call(const Expression& expression, const Macro* caller);
  Value call_macro(const Macro& macro, const Arguments& arguments, const Macro* caller);
  void bind_parameters(const MacroDefinition& definition, const Arguments& arguments);

  Runtime& runtime_;
  const Template& template_;
  std::shared_ptr<Scope> scope_;
  TextBuilder* out_ = nullptr;
  Value captured_;  // input of a filter block's innermost filter
  int32_t line_ = 0;
};

}  // namespace lamina::jinja
