// Filters on sequences and dicts as a whole.
#include <algorithm>
#include <unordered_set>

#include "text/jinja/access.h"
#include "text/jinja/builtin.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/jinja/selection.h"
#include "text/jinja/text_functions.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

Value filter_default(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const bool replaces_false = arguments.flag(1, false);
  if (!input.is(Kind::kUndefined) && !(replaces_false && !is_true(input))) return input;
  return arguments.has(0) ? arguments[0] : runtime.text("");
}

Value filter_length(Runtime& runtime, const Value& input, const BoundArguments&) {
  return Value(runtime.length(input));
}

Value filter_list(Runtime& runtime, const Value& input, const BoundArguments&) {
  return runtime.sequence(runtime.iterate(input)->items);
}

Value filter_first(Runtime& runtime, const Value& input, const BoundArguments&) {
  if (input.is(Kind::kText) && !input.bytes().empty())
    return get_item(runtime, input, Value(int64_t{0}));
  const SequencePtr items = runtime.iterate(input);
  if (items->items.empty()) return Value::undefined("No first item, sequence was empty.");
  return items->items.front();
}

void require_reversible(const Value& input) {
  if (input.is(Kind::kSequence) && input.sequence()->kind == SequenceKind::kIterator)
    fail("'generator' object is not reversible: use |list before it");
}

Value filter_last(Runtime& runtime, const Value& input, const BoundArguments&) {
  require_reversible(input);
  if (input.is(Kind::kText) && !input.bytes().empty())
    return get_item(runtime, input, Value(int64_t{-1}));
  const SequencePtr items = runtime.iterate(input);
  if (items->items.empty()) return Value::undefined("No last item, sequence was empty.");
  return items->items.back();
}

Value filter_join(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const TextPtr separator = arguments.has(0) ? to_text(runtime, arguments[0]) : nullptr;
  const AttributePath path(runtime, arguments.get(1));
  std::vector<Value> parts;
  const SequencePtr source = runtime.iterate(input);
  for (const Value& item : source->items) parts.push_back(path.of(runtime, item));
  return join_texts(runtime, separator == nullptr ? std::string_view() : separator->bytes, parts);
}

std::vector<Value> dict_pairs(Runtime& runtime, const Dict& dict) {
  std::vector<Value> pairs;
  for (const Dict::Entry& entry : dict.entries())
    pairs.push_back(runtime.sequence({entry.key, entry.value}, SequenceKind::kTuple));
  return pairs;
}

Value filter_items(Runtime& runtime, const Value& input, const BoundArguments&) {
  if (input.is(Kind::kUndefined)) return runtime.sequence({}, SequenceKind::kIterator);
  if (!input.is(Kind::kDict)) fail("Can only get item pairs from a mapping.");
  return runtime.sequence(dict_pairs(runtime, *input.dict()), SequenceKind::kIterator);
}

Value filter_dictsort(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  require_defined(input);
  if (!input.is(Kind::kDict)) fail("dictsort needs a dict, not {}", type_name(input));
  const bool is_case_sensitive = arguments.flag(0, false);
  const std::string by = arguments.has(1) ? arguments.text(1) : "key";
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  std::vector<Value> keys;
  for (const Dict::Entry& entry : input.dict()->entries()) {
    const Value& key = by == "key" ? entry.key : entry.value;
    keys.push_back(is_case_sensitive ? key : fold_case(runtime, key));
  }
  return runtime.sequence(
      sort_by_keys(runtime, dict_pairs(runtime, *input.dict()), keys, arguments.flag(2, false)));
}

// sort(attribute="a,b") sorts by a, then by b.
std::vector<AttributePath> sort_paths(Runtime& runtime, const Value& attribute) {
  if (!attribute.is(Kind::kText)) return {AttributePath(runtime, attribute)};
  std::vector<AttributePath> paths;
  std::string_view rest = attribute.bytes();
  for (;;) {
    const size_t comma = rest.find(',');
    runtime.budget().step();
    paths.emplace_back(runtime, runtime.text(rest.substr(0, comma)));
    if (comma == std::string_view::npos) return paths;
    rest.remove_prefix(comma + 1);
  }
}

Value filter_sort(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const bool is_case_sensitive = arguments.flag(1, false);
  const std::vector<AttributePath> paths = sort_paths(runtime, arguments.get(2));
  const SequencePtr items = runtime.iterate(input);
  std::vector<Value> keys;
  for (const Value& item : items->items) {
    std::vector<Value> parts;
    for (const AttributePath& path : paths) {
      const Value part = path.of(runtime, item);
      parts.push_back(is_case_sensitive ? part : fold_case(runtime, part));
    }
    // A list even of one key: equal keys, undefined ones among them, are then not compared by <.
    keys.push_back(runtime.sequence(std::move(parts)));
  }
  return runtime.sequence(sort_by_keys(runtime, items->items, keys, arguments.flag(0, false)));
}

Value filter_unique(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const bool is_case_sensitive = arguments.flag(0, false);
  const AttributePath path(runtime, arguments.get(1));
  std::unordered_set<std::string> seen;
  std::vector<Value> items;
  const SequencePtr source = runtime.iterate(input);
  for (const Value& item : source->items) {
    const Value key = path.of(runtime, item);
    runtime.budget().step();
    runtime.touch(key);
    std::optional<std::string> hash = hash_key(is_case_sensitive ? key : fold_case(runtime, key));
    if (!hash) fail("unhashable type: '{}'", type_name(key));
    if (seen.insert(std::move(*hash)).second) items.push_back(item);
  }
  return runtime.sequence(std::move(items), SequenceKind::kIterator);
}

Value filter_reverse(Runtime& runtime, const Value& input, const BoundArguments&) {
  if (input.is(Kind::kText)) return get_slice(runtime, input, Value(), Value(), Value(int64_t{-1}));
  std::vector<Value> items = runtime.iterate(input)->items;
  std::reverse(items.begin(), items.end());
  return runtime.sequence(std::move(items), SequenceKind::kIterator);
}

Value filter_batch(Runtime& runtime, const Value& input, const BoundArguments& arguments) {
  const int64_t size = arguments.integer(0, 0);
  if (size < 1) fail("batch needs a size of at least 1");
  std::vector<Value> batches;
  std::vector<Value> batch;
  const SequencePtr source = runtime.iterate(input);
  for (const Value& item : source->items) {
    if (static_cast<int64_t>(batch.size()) == size)
      batches.push_back(runtime.sequence(std::exchange(batch, {})));
    batch.push_back(item);
  }
  const Value filler = arguments.get(1);
  if (!batch.empty()) {
    while (!filler.is(Kind::kNone) && static_cast<int64_t>(batch.size()) < size) {
      runtime.budget().step();
      batch.push_back(filler);
    }
    batches.push_back(runtime.sequence(std::move(batch)));
  }
  return runtime.sequence(std::move(batches), SequenceKind::kIterator);
}

}  // namespace

std::span<const Builtin> sequence_filters() {
  static const std::vector<Builtin> kFilters = {
      {"default", filter_default, {"default_value", "boolean"}},
      {"d", filter_default, {"default_value", "boolean"}},
      {"length", filter_length},
      {"count", filter_length},
      {"list", filter_list},
      {"first", filter_first},
      {"last", filter_last},
      {"join", filter_join, {"d", "attribute"}},
      {"items", filter_items},
      {"dictsort", filter_dictsort, {"case_sensitive", "by", "reverse"}},
      {"sort", filter_sort, {"reverse", "case_sensitive", "attribute"}},
      {"unique", filter_unique, {"case_sensitive", "attribute"}},
      {"reverse", filter_reverse},
      {"batch", filter_batch, {"linecount", "fill_with"}, 1},
  };
  return kFilters;
}

}  // namespace lamina::jinja
