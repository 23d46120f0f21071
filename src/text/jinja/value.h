// Value: what a template computes with, a Python object seen from Jinja. Text, sequences, dicts and
// functions are immutable and shared, so they cannot form cycles; namespaces, loops and macros are
// owned by the Runtime of one rendering and only pointed to. Nesting is at most kMaxValueDepth, so
// that walking or destroying a value cannot run out of stack.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "text/jinja/budget.h"

namespace lamina::jinja {

inline constexpr int32_t kMaxValueDepth = 128;

// What Python would raise as TypeError, ValueError or jinja2 as UndefinedError.
template <typename... A>
[[noreturn]] void fail(fmt::format_string<A...> format, A&&... arguments) {
  throw Error(StatusCode::kInvalidArgument, fmt::format(format, std::forward<A>(arguments)...));
}

class Value;
class Dict;
struct Text;
struct Sequence;
struct Function;
struct Namespace;  // runtime.h
struct Loop;       // runtime.h
struct Macro;      // runtime.h

using TextPtr = std::shared_ptr<const Text>;
using SequencePtr = std::shared_ptr<const Sequence>;
using DictPtr = std::shared_ptr<const Dict>;
using FunctionPtr = std::shared_ptr<const Function>;

struct None {};
struct Undefined {
  std::shared_ptr<const std::string> why;  // the message if it is used
};

// In the order of Value's variant.
enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kSequence,
  kDict,
  kFunction,
  kNamespace,
  kLoop,
  kMacro,
};

class Value {
 public:
  Value() : data_(None{}) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(TextPtr value) : data_(std::move(value)) {}
  explicit Value(SequencePtr value) : data_(std::move(value)) {}
  explicit Value(DictPtr value) : data_(std::move(value)) {}
  explicit Value(FunctionPtr value) : data_(std::move(value)) {}
  explicit Value(Namespace* value) : data_(value) {}
  explicit Value(Loop* value) : data_(value) {}
  explicit Value(const Macro* value) : data_(value) {}
  Value(const char*) = delete;  // would be a bool
  static Value undefined(std::string why);

  [[nodiscard]] Kind kind() const { return static_cast<Kind>(data_.index()); }
  [[nodiscard]] bool is(Kind kind) const { return this->kind() == kind; }
  [[nodiscard]] bool is_number() const {
    return is(Kind::kInt) || is(Kind::kFloat) || is(Kind::kBool);
  }

  // Each needs its kind().
  [[nodiscard]] bool as_bool() const { return std::get<bool>(data_); }
  [[nodiscard]] int64_t as_int() const { return std::get<int64_t>(data_); }
  [[nodiscard]] double as_float() const { return std::get<double>(data_); }
  [[nodiscard]] const TextPtr& text() const { return std::get<TextPtr>(data_); }
  [[nodiscard]] const std::string& bytes() const;  // of a text
  [[nodiscard]] const SequencePtr& sequence() const { return std::get<SequencePtr>(data_); }
  [[nodiscard]] const DictPtr& dict() const { return std::get<DictPtr>(data_); }
  [[nodiscard]] const FunctionPtr& function() const { return std::get<FunctionPtr>(data_); }
  [[nodiscard]] Namespace& name_space() const { return *std::get<Namespace*>(data_); }
  [[nodiscard]] Loop& loop() const { return *std::get<Loop*>(data_); }
  [[nodiscard]] const Macro& macro() const { return *std::get<const Macro*>(data_); }
  [[nodiscard]] const std::string& why_undefined() const { return *std::get<Undefined>(data_).why; }

  // As Python's int() of a bool or int: True is 1.
  [[nodiscard]] std::optional<int64_t> integer() const;
  // 0 for scalars.
  [[nodiscard]] int32_t depth() const;
  // Python's `is`, as far as it can be told: scalars by value, the rest by address.
  [[nodiscard]] bool is_same(const Value& other) const;

 private:
  std::variant<Undefined,
               None,
               bool,
               int64_t,
               double,
               TextPtr,
               SequencePtr,
               DictPtr,
               FunctionPtr,
               Namespace*,
               Loop*,
               const Macro*>
      data_;
};

// UTF-8, always valid.
struct Text {
  std::string bytes;
  size_t num_chars = 0;
  bool is_safe = false;  // markup: escaped already
  Charge charge;

  [[nodiscard]] bool is_ascii() const { return num_chars == bytes.size(); }
};

enum class SequenceKind : uint8_t {
  kList,
  kTuple,
  kRange,
  kView,      // of a dict: no index
  kIterator,  // of map, select and the like: no length, no index, empty after its first use
};

struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  int32_t depth = 1;
  mutable bool is_consumed = false;  // kIterator
  Charge charge;
};

// A dict in insertion order. Filled by set(), then shared as const.
class Dict {
 public:
  struct Entry {
    Value key;
    Value value;
  };

  // Throws for keys that Python cannot hash.
  void set(Value key, Value value);
  // Null if absent or not hashable.
  [[nodiscard]] const Value* find(const Value& key) const;
  [[nodiscard]] const Value* find(std::string_view key) const;

  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
  [[nodiscard]] size_t size() const { return entries_.size(); }
  [[nodiscard]] int32_t depth() const { return depth_; }

  Charge charge;

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;  // hash_key of the key -> entry
  int32_t depth_ = 1;
};

struct Builtin;  // builtin.h

// A global function, or a method bound to its object.
struct Function {
  const Builtin* builtin = nullptr;
  Value self;
  Charge charge;
};

// Equal for keys that Python holds equal (1, 1.0 and True). Empty for what it cannot hash.
std::optional<std::string> hash_key(const Value& key);

// A text that no rendering owns.
TextPtr make_constant_text(std::string bytes);

// Python's name of the type, for messages: "str", "NoneType".
std::string_view type_name(const Value& value);

}  // namespace lamina::jinja
