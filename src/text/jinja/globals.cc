// Global functions: jinja2's range, dict and namespace, and what Hugging Face adds.
#include <array>
#include <ctime>

#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // jinja2's sandbox has the same

Value global_range(Runtime& runtime, const Value&, const BoundArguments& arguments) {
  const bool has_stop = arguments.has(1);
  const int64_t start = has_stop ? arguments.integer(0, 0) : 0;
  const int64_t stop = arguments.integer(has_stop ? 1 : 0, 0);
  const int64_t step = arguments.integer(2, 1);
  if (step == 0) fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  int64_t number = start;
  while (step > 0 ? number < stop : number > stop) {
    if (static_cast<int64_t>(items.size()) == kMaxRange) {
      throw Error(StatusCode::kResourceExhausted,
                  fmt::format("Range too big: more than {} items", kMaxRange));
    }
    items.emplace_back(number);
    if (__builtin_add_overflow(number, step, &number)) break;
  }
  return runtime.sequence(std::move(items), SequenceKind::kRange);
}

// dict(other, name=value) and namespace(other, name=value) begin alike.
std::vector<std::pair<Value, Value>> members(Runtime& runtime, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> all;
  if (arguments.positional.size() > 1) fail("expected at most 1 argument");
  for (const Value& other : arguments.positional) {
    require_defined(other);
    if (other.is(Kind::kDict)) {
      runtime.budget().touch_items(other.dict()->size());
      for (const Dict::Entry& entry : other.dict()->entries())
        all.emplace_back(entry.key, entry.value);
      continue;
    }
    const SequencePtr pairs = runtime.iterate(other);
    for (const Value& pair : pairs->items) {
      const SequencePtr parts = runtime.iterate(pair);
      if (parts->items.size() != 2) fail("a dict is made from pairs");
      all.emplace_back(parts->items[0], parts->items[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) all.emplace_back(runtime.text(name), value);
  return all;
}

Value global_dict(Runtime& runtime, const Value&, const BoundArguments& arguments) {
  Dict dict;
  for (auto& [key, value] : members(runtime, arguments.raw())) {
    runtime.touch(key);
    dict.set(key, value);
  }
  return runtime.dict(std::move(dict));
}

Value global_namespace(Runtime& runtime, const Value&, const BoundArguments& arguments) {
  const auto all = members(runtime, arguments.raw());
  Namespace& made = runtime.make_namespace();
  for (const auto& [key, value] : all) {
    if (!key.is(Kind::kText)) fail("a namespace's attributes are named by str");
    runtime.touch(key);
    made.attributes.insert_or_assign(key.bytes(), value);
  }
  return Value(&made);
}

Value global_raise(Runtime& runtime, const Value&, const BoundArguments& arguments) {
  throw TemplateRaised(to_text(runtime, arguments[0])->bytes);
}

// One conversion as the C locale prints it. Listed, because glibc also takes widths that would make
// the result as long as the template likes.
std::string format_time(const std::tm& time, std::string_view conversion) {
  constexpr std::string_view kPlain = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%";
  std::string_view letter = conversion.substr(1);
  if (letter.starts_with('-')) letter.remove_prefix(1);
  if (letter.size() != 1 || kPlain.find(letter) == std::string_view::npos)
    fail("strftime_now does not support {}", quoted(conversion));
  std::array<char, 256> buffer{};
  const size_t size =
      std::strftime(buffer.data(), buffer.size(), std::string(conversion).c_str(), &time);
  return {buffer.data(), size};
}

Value global_strftime_now(Runtime& runtime, const Value&, const BoundArguments& arguments) {
  const std::string& format = arguments.text(0);
  const auto now = static_cast<std::time_t>(runtime.now_s());
  std::tm time{};
  localtime_r(&now, &time);
  runtime.budget().touch_chars(format.size());
  TextBuilder out(runtime);
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out.append(format[at++]);
      continue;
    }
    const size_t size = format.compare(at, 2, "%-") == 0 ? 3 : 2;
    runtime.budget().step();
    out.append(format_time(time, std::string_view(format).substr(at, size)));
    at += size;
  }
  return out.take_value();
}

}  // namespace

std::span<const Builtin> global_functions() {
  static const std::vector<Builtin> kFunctions = {
      {"range", global_range, {"start", "stop", "step"}, 1},
      {.name = "dict", .call = global_dict, .is_variadic = true},
      {.name = "namespace", .call = global_namespace, .is_variadic = true},
      {"raise_exception", global_raise, {"message"}, 1},
      {"strftime_now", global_strftime_now, {"format"}, 1},
  };
  return kFunctions;
}

}  // namespace lamina::jinja
