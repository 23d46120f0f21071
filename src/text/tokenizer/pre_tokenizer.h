// PreTokenizer: cuts normalised text into pieces; no token crosses the border of two. Immutable,
// safe to use from any thread.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "text/tokenizer/split_pattern.h"

namespace lamina {

// What becomes of a match when text is cut at matches.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  SplitPattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // matches are what lies between the pattern's matches
};
// A space before every piece that does not start with one.
struct PrefixSpaceStep {};
// Spaces become `replacement`, each piece gets one in front and is cut before each.
struct MetaspaceStep {
  enum class Prepend { kAlways, kFirst, kNever };  // kFirst: the text's first piece only
  std::string replacement;                         // one character
  Prepend prepend = Prepend::kAlways;
  bool split = true;
};
using PreTokenizerStep = std::variant<SplitStep, PrefixSpaceStep, MetaspaceStep>;

// Text and its pieces: what a step reads and rewrites. No piece is empty.
struct Pieces {
  std::string text;
  std::vector<TextRange> ranges;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  // `text` is valid UTF-8 and not empty; `at_start`: nothing stood before it in the caller's text.
  // kResourceExhausted as SplitPattern::find_all.
  [[nodiscard]] Result<Pieces> apply(std::string_view text, bool at_start) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

}  // namespace lamina
