#include "text/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "text/tokenizer/normalizer.h"

namespace lamina {
namespace {

// A stretch of text between two cuts; together they cover a piece.
struct Stretch {
  TextRange range;
  bool is_match;
};

// A match joins the neighbour before it, if that is not a match itself. For the neighbour behind
// it, the stretches come in reverse.
std::vector<TextRange> merge_matches(const std::vector<Stretch>& stretches) {
  std::vector<TextRange> merged;
  bool after_match = false;
  for (const auto& [range, is_match] : stretches) {
    if (is_match && !after_match && !merged.empty()) {
      merged.back() = {std::min(merged.back().begin, range.begin),
                       std::max(merged.back().end, range.end)};
    } else {
      merged.push_back(range);
    }
    after_match = is_match;
  }
  return merged;
}

std::vector<TextRange> join_equal(const std::vector<Stretch>& stretches) {
  std::vector<TextRange> joined;
  for (size_t i = 0; i < stretches.size(); ++i) {
    if (i > 0 && stretches[i].is_match == stretches[i - 1].is_match) {
      joined.back().end = stretches[i].range.end;
    } else {
      joined.push_back(stretches[i].range);
    }
  }
  return joined;
}

std::vector<TextRange> cut(std::vector<Stretch> stretches, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kMergedWithPrevious:
      return merge_matches(stretches);
    case SplitBehavior::kMergedWithNext: {
      std::reverse(stretches.begin(), stretches.end());
      std::vector<TextRange> merged = merge_matches(stretches);
      std::reverse(merged.begin(), merged.end());
      return merged;
    }
    case SplitBehavior::kContiguous:
      return join_equal(stretches);
    case SplitBehavior::kIsolated:
    case SplitBehavior::kRemoved:
      break;
  }
  std::vector<TextRange> kept;
  for (const auto& [range, is_match] : stretches) {
    if (!is_match || behavior == SplitBehavior::kIsolated) kept.push_back(range);
  }
  return kept;
}

std::vector<Stretch> cover(size_t size, const std::vector<TextRange>& matches, bool invert) {
  std::vector<Stretch> stretches;
  size_t end = 0;
  for (const TextRange& match : matches) {
    if (match.begin > end) stretches.push_back({{end, match.begin}, invert});
    stretches.push_back({match, !invert});
    end = match.end;
  }
  if (end < size) stretches.push_back({{end, size}, invert});
  return stretches;
}

Status split_piece(const SplitStep& step,
                   std::string_view text,
                   size_t offset,
                   std::vector<TextRange>& ranges) {
  std::vector<TextRange> matches;
  LAMINA_RETURN_IF_ERROR(step.pattern.find_all(text, matches));
  for (const TextRange& range : cut(cover(text.size(), matches, step.invert), step.behavior)) {
    if (range.end > range.begin) ranges.push_back({offset + range.begin, offset + range.end});
  }
  return Status::ok_status();
}

struct StepApplier {
  Pieces pieces;
  bool at_start;  // the first piece stands at the start of the caller's text

  [[nodiscard]] std::string_view view(const TextRange& range) const {
    return std::string_view(pieces.text).substr(range.begin, range.end - range.begin);
  }

  Status operator()(const SplitStep& step) {
    std::vector<TextRange> ranges;
    for (const TextRange& range : pieces.ranges) {
      LAMINA_RETURN_IF_ERROR(split_piece(step, view(range), range.begin, ranges));
    }
    pieces.ranges = std::move(ranges);
    at_start = at_start && !pieces.ranges.empty() && pieces.ranges.front().begin == 0;
    return Status::ok_status();
  }

  Status operator()(const PrefixSpaceStep&) {
    Pieces spaced;
    for (const TextRange& range : pieces.ranges) {
      const std::string_view piece = view(range);
      const size_t begin = spaced.text.size();
      if (!piece.starts_with(' ')) spaced.text += ' ';
      spaced.text += piece;
      spaced.ranges.push_back({begin, spaced.text.size()});
    }
    pieces = std::move(spaced);
    return Status::ok_status();
  }

  Status operator()(const MetaspaceStep& step) {
    Pieces spaced;
    for (const TextRange& range : pieces.ranges) {
      const size_t begin = spaced.text.size();
      const std::string piece = replace_all(view(range), " ", step.replacement);
      const bool wants_prefix =
          step.prepend == MetaspaceStep::Prepend::kAlways ||
          (step.prepend == MetaspaceStep::Prepend::kFirst && at_start && begin == 0);
      if (wants_prefix && !piece.starts_with(step.replacement)) spaced.text += step.replacement;
      spaced.text += piece;
      append_metaspace_pieces(step, spaced, begin);
    }
    pieces = std::move(spaced);
    return Status::ok_status();
  }

  // The text from `begin` on, cut before every replacement character if the step splits.
  static void append_metaspace_pieces(const MetaspaceStep& step, Pieces& spaced, size_t begin) {
    while (step.split) {
      const size_t next = spaced.text.find(step.replacement, begin + 1);
      if (next == std::string::npos) break;
      spaced.ranges.push_back({begin, next});
      begin = next;
    }
    spaced.ranges.push_back({begin, spaced.text.size()});
  }
};

}  // namespace

Result<Pieces> PreTokenizer::apply(std::string_view text, bool at_start) const {
  StepApplier applier{{std::string(text), {{0, text.size()}}}, at_start};
  for (const PreTokenizerStep& step : steps_) LAMINA_RETURN_IF_ERROR(std::visit(applier, step));
  return std::move(applier.pieces);
}

}  // namespace lamina
