// SplitPattern: a regular expression of a tokenizer file, run by PCRE2 (JIT where it is available).
// The files are written for Oniguruma; patterns that the two libraries read differently are
// refused. The only file that includes PCRE2. Immutable, safe to use from any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace lamina {

// Bytes [begin, end) of some text.
struct TextRange {
  size_t begin;
  size_t end;
  bool operator==(const TextRange&) const = default;
};

class SplitPattern {
 public:
  static constexpr size_t kMaxPatternBytes = 8192;
  enum class Syntax { kRegex, kLiteral };

  // Throws Error kInvalidArgument.
  SplitPattern(std::string_view pattern, Syntax syntax);
  SplitPattern(const SplitPattern&) = delete;
  SplitPattern& operator=(const SplitPattern&) = delete;
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  // Appends the matches in `text` (valid UTF-8), left to right, without overlap; they may be empty,
  // but then not right behind another. kResourceExhausted past the limits on steps, which are per
  // start of a match, and memory: a pattern written to fail late everywhere is quadratic.
  [[nodiscard]] Status find_all(std::string_view text, std::vector<TextRange>& matches) const;

 private:
  struct Compiled;
  std::unique_ptr<const Compiled> compiled_;
};

}  // namespace lamina
