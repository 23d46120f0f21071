// Runtime: the heap of one rendering. It makes values, charges them to the Budget and owns the
// mutable objects (namespaces, loops, macros), so that cycles through them are freed with it.
// Confined to one thread; outlives every value it made.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

struct MacroDefinition;  // ast.h

struct Namespace {
  std::unordered_map<std::string, Value> attributes;
};

// The `loop` variable of a for block.
struct Loop {
  SequencePtr items;  // dropped when the loop ends
  int64_t index = 0;  // from 0
  std::optional<std::vector<Value>> last_changed;
};

// The variables of one block; names are the parser's ids.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::unordered_map<int32_t, Value> variables;

  [[nodiscard]] const Value* find(int32_t name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
      const auto found = scope->variables.find(name);
      if (found != scope->variables.end()) return &found->second;
    }
    return nullptr;
  }
};

struct Macro {
  const MacroDefinition* definition = nullptr;
  std::shared_ptr<Scope> scope;  // where it was defined
};

// raise_exception(): its message reaches the client as it stands.
class TemplateRaised : public Error {
 public:
  explicit TemplateRaised(const std::string& message)
      : Error(StatusCode::kInvalidArgument, message) {}
};

class Runtime {
 public:
  Runtime(const TemplateLimits& limits, int64_t now_s) : budget_(limits), now_s_(now_s) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime() = default;

  [[nodiscard]] Budget& budget() { return budget_; }
  // Seconds since 1970, for strftime_now.
  [[nodiscard]] int64_t now_s() const { return now_s_; }

  Value text(std::string bytes, bool is_safe = false);
  Value text(std::string_view bytes) { return text(std::string(bytes)); }
  Value text(const char* bytes) { return text(std::string(bytes)); }
  Value sequence(std::vector<Value> items, SequenceKind kind = SequenceKind::kList);
  Value dict(Dict entries);
  Value bind(const Builtin& builtin, Value self);
  Namespace& make_namespace() { return make(namespaces_); }
  Loop& make_loop() { return make(loops_); }
  Macro& make_macro() { return make(macros_); }

  // Work on a text as a whole, a dict's key or an operand; what is not text costs nothing.
  void touch(const Value& value) {
    if (value.is(Kind::kText)) budget_.touch_bytes(value.bytes().size());
  }
  // What a for loop walks over: items, characters, keys. Uses up an iterator.
  SequencePtr iterate(const Value& value);
  // Python's len(); throws for what has none.
  int64_t length(const Value& value);

 private:
  template <typename T>
  T& make(std::deque<T>& objects) {
    budget_.acquire(sizeof(T));  // held until the rendering ends
    return objects.emplace_back();
  }

  Budget budget_;  // first: values give back to it when they die
  int64_t now_s_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Macro> macros_;
};

// Text under construction: bounded by the largest text, charged while it grows.
class TextBuilder {
 public:
  explicit TextBuilder(Runtime& runtime) : runtime_(runtime), charge_(runtime.budget(), 0) {}

  void append(std::string_view bytes) {
    runtime_.budget().check_text_size(bytes_.size() + bytes.size());
    charge_.grow(bytes.size());
    bytes_.append(bytes);
  }
  void append(char byte) { append(std::string_view(&byte, 1)); }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  // Leaves the builder empty; the new value carries the charge from here on.
  [[nodiscard]] std::string take() {
    charge_ = Charge(runtime_.budget(), 0);
    return std::exchange(bytes_, {});
  }
  Value take_value(bool is_safe = false) { return runtime_.text(take(), is_safe); }
  [[nodiscard]] Runtime& runtime() { return runtime_; }

 private:
  Runtime& runtime_;
  std::string bytes_;
  Charge charge_;
};

}  // namespace lamina::jinja
