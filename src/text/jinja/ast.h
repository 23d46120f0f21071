// The parsed template: expressions and statements as trees of nodes, each with the line it began
// on. Immutable after parsing, shared by all renderings.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/value.h"

namespace lamina::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

enum class ExpressionKind : uint8_t {
  kConstant,     // constant
  kName,         // name, name_id
  kList,         // operands
  kTuple,        // operands
  kDict,         // operands: key, value, key, value, ...
  kAttribute,    // operands[0], name
  kItem,         // operands: object, key
  kSlice,        // operands: object, start, stop, step; null where left out
  kCall,         // operands: function, then positional arguments; named
  kFilter,       // operands: input (null: what the block around it captured), then arguments; named
  kTest,         // operands: subject, then arguments; named
  kNot,          // operands[0]
  kNegate,       // operands[0]
  kArithmetic,   // operands joined by operators, from the left
  kConcat,       // operands, as text
  kAnd,          // operands
  kOr,           // operands
  kCompare,      // operands joined by operators, as a < b < c
  kConditional,  // operands: condition, then, else (null: undefined)
};

struct NamedArgument {
  std::string name;
  ExpressionPtr value;
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int32_t line = 0;
  int32_t name_id = 0;
  const Builtin* builtin = nullptr;  // kFilter, kTest
  Value constant;
  std::string name;
  std::vector<ExpressionPtr> operands;
  std::vector<Operator> operators;  // one fewer than operands
  std::vector<NamedArgument> named;
};

// What an assignment or a for loop stores to: a name, a namespace's attribute, or a tuple.
struct Target {
  int32_t name_id = 0;
  std::string name;
  std::string attribute;      // empty: the name itself
  std::vector<Target> parts;  // not empty: a tuple
};

struct Statement;
using Block = std::vector<Statement>;

enum class StatementKind : uint8_t {
  kText,         // text
  kOutput,       // value
  kIf,           // branches, otherwise
  kFor,          // target in value, if condition: body, otherwise
  kSet,          // target = value
  kSetBlock,     // target = body, through the filters of value if there are any
  kMacro,        // macro, stored under target
  kCallBlock,    // value is a kCall; macro is the caller
  kFilterBlock,  // value is a kFilter whose innermost input is the body
  kWith,         // assignments, body
  kScope,        // body in a scope of its own
  kBreak,
  kContinue,
};

struct Branch {
  ExpressionPtr condition;
  Block body;
};

struct Assignment {
  Target target;
  ExpressionPtr value;
};

struct MacroParameter {
  int32_t name_id = 0;
  std::string name;
  ExpressionPtr fallback;  // null: undefined if not given
};

struct MacroDefinition {
  std::string name;
  std::vector<MacroParameter> parameters;
  Block body;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int32_t line = 0;
  std::string text;
  ExpressionPtr value;
  ExpressionPtr condition;
  Target target;
  Block body;
  Block otherwise;
  std::vector<Branch> branches;
  std::vector<Assignment> assignments;
  std::unique_ptr<const MacroDefinition> macro;
};

struct Template {
  Block body;
  std::vector<std::string> names;  // by name_id
};

// Names that the evaluator stores itself; the parser gives them these ids.
enum SpecialName : int32_t { kLoopName, kCallerName };

}  // namespace lamina::jinja
