#include "text/jinja/evaluator.h"

#include <utility>

#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace lamina::jinja {
namespace {

// A scope below the current one, for as long as it lives; the old one comes back on every way out.
class ScopeGuard {
 public:
  ScopeGuard(Runtime& runtime, std::shared_ptr<Scope>& current, std::shared_ptr<Scope> parent)
      : current_(current), outer_(current) {
    runtime.budget().step();
    current_ = std::make_shared<Scope>();
    current_->parent = std::move(parent);
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;
  ~ScopeGuard() { current_ = std::move(outer_); }

 private:
  std::shared_ptr<Scope>& current_;
  std::shared_ptr<Scope> outer_;
};

// A value put back on every way out.
template <typename T>
class Restore {
 public:
  Restore(T& place, T value) : place_(place), old_(std::exchange(place, std::move(value))) {}
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;
  ~Restore() { place_ = std::move(old_); }

 private:
  T& place_;
  T old_;
};

class Level {
 public:
  explicit Level(Budget& budget) : budget_(budget) { budget_.enter(); }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;
  ~Level() { budget_.leave(); }

 private:
  Budget& budget_;
};

}  // namespace

Evaluator::Evaluator(Runtime& runtime, const Template& parsed, const Value& context)
    : runtime_(runtime), template_(parsed), scope_(std::make_shared<Scope>()) {
  for (size_t id = 0; id < parsed.names.size(); ++id) {
    if (const Value* value = context.dict()->find(std::string_view(parsed.names[id])))
      scope_->variables.emplace(static_cast<int32_t>(id), *value);
  }
}

std::string Evaluator::run() {
  TextBuilder out(runtime_);
  const Restore<TextBuilder*> output(out_, &out);
  run_block(template_.body);
  return out.take();
}

Evaluator::Flow Evaluator::run_block(const Block& block) {
  const Level level(runtime_.budget());
  for (const Statement& statement : block)
    if (const Flow flow = run_statement(statement); flow != Flow::kNext) return flow;
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_statement(const Statement& statement) {
  runtime_.budget().step();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::kText:
      runtime_.budget().touch_bytes(statement.text.size());
      out_->append(statement.text);
      return Flow::kNext;
    case StatementKind::kOutput:
      append_str(*out_, evaluate(*statement.value));
      return Flow::kNext;
    case StatementKind::kIf:
      return run_if(statement);
    case StatementKind::kFor:
      return run_for(statement);
    case StatementKind::kSet:
      assign(statement.target, evaluate(*statement.value));
      return Flow::kNext;
    case StatementKind::kSetBlock:
      run_set_block(statement);
      return Flow::kNext;
    case StatementKind::kMacro:
      run_macro(statement);
      return Flow::kNext;
    case StatementKind::kCallBlock:
      run_call_block(statement);
      return Flow::kNext;
    case StatementKind::kFilterBlock: {
      const Restore<Value> input(captured_, capture(statement.body));
      append_str(*out_, evaluate(*statement.value));
      return Flow::kNext;
    }
    case StatementKind::kWith:
    case StatementKind::kScope:
      return run_scoped(statement);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_if(const Statement& statement) {
  for (const Branch& branch : statement.branches)
    if (is_true(evaluate(*branch.condition))) return run_block(branch.body);
  return run_block(statement.otherwise);
}

// The items that pass the loop's condition, which sees the target but not `loop`.
SequencePtr Evaluator::loop_items(const Statement& statement) {
  SequencePtr all = runtime_.iterate(evaluate(*statement.value));
  if (statement.condition == nullptr) return all;
  std::vector<Value> kept;
  for (const Value& item : all->items) {
    const ScopeGuard scope(runtime_, scope_, scope_);
    assign(statement.target, item);
    if (is_true(evaluate(*statement.condition))) kept.push_back(item);
  }
  return runtime_.sequence(std::move(kept)).sequence();
}

Evaluator::Flow Evaluator::run_for(const Statement& statement) {
  const SequencePtr items = loop_items(statement);
  if (items->items.empty()) {
    const ScopeGuard scope(runtime_, scope_, scope_);
    return run_block(statement.otherwise);
  }
  Loop& loop = runtime_.make_loop();
  loop.items = items;
  for (const Value& item : items->items) {
    const ScopeGuard scope(runtime_, scope_, scope_);
    scope_->variables.insert_or_assign(kLoopName, Value(&loop));
    assign(statement.target, item);
    if (run_block(statement.body) == Flow::kBreak) break;
    ++loop.index;
  }
  loop.items = nullptr;
  loop.last_changed.reset();
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_scoped(const Statement& statement) {
  std::vector<Value> values;
  values.reserve(statement.assignments.size());
  for (const Assignment& assignment : statement.assignments)
    values.push_back(evaluate(*assignment.value));
  const ScopeGuard scope(runtime_, scope_, scope_);
  for (size_t i = 0; i < values.size(); ++i) assign(statement.assignments[i].target, values[i]);
  return run_block(statement.body);
}

Value Evaluator::capture(const Block& block) {
  TextBuilder text(runtime_);
  const Restore<TextBuilder*> output(out_, &text);
  const ScopeGuard scope(runtime_, scope_, scope_);
  run_block(block);
  return text.take_value();
}

void Evaluator::run_set_block(const Statement& statement) {
  Value text = capture(statement.body);
  if (statement.value != nullptr) {
    const Restore<Value> input(captured_, text);
    text = evaluate(*statement.value);
  }
  assign(statement.target, text);
}

void Evaluator::run_macro(const Statement& statement) {
  Macro& macro = runtime_.make_macro();
  macro.definition = statement.macro.get();
  macro.scope = scope_;
  scope_->variables.insert_or_assign(statement.target.name_id, Value(&std::as_const(macro)));
}

void Evaluator::run_call_block(const Statement& statement) {
  Macro& caller = runtime_.make_macro();
  caller.definition = statement.macro.get();
  caller.scope = scope_;
  append_str(*out_, call(*statement.value, &caller));
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (!target.parts.empty()) {
    const SequencePtr items = runtime_.iterate(value);
    if (items->items.size() != target.parts.size())
      fail("{} values to unpack, {} expected", items->items.size(), target.parts.size());
    for (size_t i = 0; i < target.parts.size(); ++i) assign(target.parts[i], items->items[i]);
    return;
  }
  if (target.attribute.empty()) {
    scope_->variables.insert_or_assign(target.name_id, value);
    return;
  }
  const Value* object = scope_->find(target.name_id);
  if (object == nullptr || !object->is(Kind::kNamespace))
    fail("cannot assign attribute on non-namespace object '{}'", target.name);
  object->name_space().attributes.insert_or_assign(target.attribute, value);
}

Value Evaluator::call_macro(const Macro& macro, const Arguments& arguments, const Macro* caller) {
  runtime_.budget().enter_macro();
  TextBuilder text(runtime_);
  {
    const Restore<TextBuilder*> output(out_, &text);
    const ScopeGuard scope(runtime_, scope_, macro.scope);
    if (caller != nullptr) scope_->variables.insert_or_assign(kCallerName, Value(caller));
    bind_parameters(*macro.definition, arguments);
    run_block(macro.definition->body);
  }
  runtime_.budget().leave_macro();
  return text.take_value();
}

void Evaluator::bind_parameters(const MacroDefinition& definition, const Arguments& arguments) {
  const auto& parameters = definition.parameters;
  if (arguments.positional.size() > parameters.size())
    fail("macro '{}' takes not more than {} argument(s)", definition.name, parameters.size());
  std::vector<bool> is_used(arguments.named.size(), false);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const MacroParameter& parameter = parameters[i];
    std::optional<Value> value;
    if (i < arguments.positional.size()) value = arguments.positional[i];
    for (size_t n = 0; n < arguments.named.size(); ++n) {
      if (arguments.named[n].first != parameter.name) continue;
      if (value) fail("macro '{}' got '{}' twice", definition.name, parameter.name);
      value = arguments.named[n].second;
      is_used[n] = true;
    }
    if (!value && parameter.fallback != nullptr) value = evaluate(*parameter.fallback);
    if (!value)
      value = Value::undefined(fmt::format("parameter '{}' was not provided", parameter.name));
    scope_->variables.insert_or_assign(parameter.name_id, std::move(*value));
  }
  for (size_t n = 0; n < is_used.size(); ++n) {
    if (!is_used[n])
      fail("macro '{}' takes no keyword argument '{}'", definition.name, arguments.named[n].first);
  }
}

}  // namespace lamina::jinja
