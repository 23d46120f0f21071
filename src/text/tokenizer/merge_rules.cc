#include "text/tokenizer/merge_rules.h"

#include <algorithm>
#include <tuple>

namespace lamina {

PairMerges::PairMerges(std::vector<Rule> rules, int32_t vocab_size) {
  std::sort(rules.begin(), rules.end(), [](const Rule& a, const Rule& b) {
    return std::tie(a.left, a.right, a.merge.rank) < std::tie(b.left, b.right, b.merge.rank);
  });
  row_begin_.assign(static_cast<size_t>(vocab_size) + 1, 0);
  entries_.reserve(rules.size());
  for (size_t i = 0; i < rules.size(); ++i) {
    const Rule& rule = rules[i];
    const bool repeated =
        i > 0 && rules[i - 1].left == rule.left && rules[i - 1].right == rule.right;
    if (repeated) entries_.pop_back();
    entries_.push_back({rule.right, rule.merge});
    row_begin_[static_cast<size_t>(rule.left) + 1] = static_cast<uint32_t>(entries_.size());
  }
  for (size_t i = 1; i < row_begin_.size(); ++i) {  // rows without entries
    row_begin_[i] = std::max(row_begin_[i], row_begin_[i - 1]);
  }
}

Merge PairMerges::find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return {};
  const auto row = static_cast<size_t>(left);
  const auto begin = entries_.begin() + row_begin_[row];
  const auto end = entries_.begin() + row_begin_[row + 1];
  const auto entry = std::lower_bound(
      begin, end, right, [](const Entry& e, int32_t wanted) { return e.right < wanted; });
  return entry != end && entry->right == right ? entry->merge : Merge{};
}

Merge ScoredMerges::find(const Vocabulary& vocabulary, std::string_view joined) const {
  const std::optional<int32_t> id = vocabulary.find(joined);
  if (!id || !is_piece(*id)) return {};
  return {ranks_[static_cast<size_t>(*id)], *id};
}

}  // namespace lamina
