#include "text/tokenizer/split_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/unique_handle.h"
#include "text/tokenizer/utf8.h"
#include "text/tokenizer/vocabulary.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace lamina {
namespace {

// Per match attempt. A long run of white space backtracks once a byte, so the limit is above the
// longest text; what it stops is exponential patterns.
constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

struct CodeTraits {
  using Raw = pcre2_code*;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw code) noexcept { pcre2_code_free(code); }
};
struct MatchDataTraits {
  using Raw = pcre2_match_data*;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw data) noexcept { pcre2_match_data_free(data); }
};
struct MatchContextTraits {
  using Raw = pcre2_match_context*;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw context) noexcept { pcre2_match_context_free(context); }
};

PCRE2_SPTR as_pcre2(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());  // NOLINT: unsigned char may alias
}

std::string pcre2_message(int code) {
  std::array<unsigned char, 128> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());  // NOLINT: ASCII
}

[[noreturn]] void refuse(std::string_view pattern, const std::string& why) {
  throw Error(StatusCode::kInvalidArgument,
              fmt::format("split pattern {} is not supported: {}", in_quotes(pattern), why));
}

// A repetition in braces, "{1,3}", starts at `position`: where it ends; else 0.
size_t counted_repeat_end(std::string_view pattern, size_t position) {
  const size_t end = pattern.find_first_not_of("0123456789,", position + 1);
  if (end == std::string_view::npos || pattern[end] != '}' || end == position + 1) return 0;
  return end + 1;
}

// Unicode White_Space, as Oniguruma reads \s; PCRE2's own counts U+180E in. For a class.
constexpr std::string_view kSpaces = R"(\p{Z}\t-\r\x{85})";

// Rewrites a pattern for PCRE2, letting through what Oniguruma reads alike. What differs and is
// refused: "\w" and "\b" (marks count there), "\h" (a hexadecimal digit there), "{1,3}+" (there a
// repetition of a repetition), "&&" and a class within a class, "{,3}", flags
// but (?i:...), "(*" (verbs), "(?R)" (recursion).
class PatternTranslator {
 public:
  explicit PatternTranslator(std::string_view pattern) : pattern_(pattern) {}

  std::string translate() {
    while (position_ < pattern_.size()) {
      const char c = pattern_[position_];
      if (c == '\\') {
        translate_escape();
      } else if (in_class_) {
        translate_in_class(c);
      } else {
        translate_outside(c);
      }
    }
    return std::move(out_);
  }

 private:
  [[nodiscard]] bool follows(std::string_view text) const {
    return pattern_.substr(position_).starts_with(text);
  }

  void copy(size_t size) {
    out_ += pattern_.substr(position_, size);
    position_ += size;
  }

  void translate_escape() {
    constexpr std::string_view kLetters = "pPsSdDrntfxA";
    if (position_ + 1 == pattern_.size()) refuse(pattern_, "it ends in a backslash");
    const char c = pattern_[position_ + 1];
    const bool alphanumeric =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (alphanumeric && kLetters.find(c) == std::string_view::npos) {
      refuse(pattern_, fmt::format("escape \\{}", c));
    }
    if (c == 's' || c == 'S') {
      if (c == 'S' && in_class_) refuse(pattern_, "\\S in a class");
      out_ += in_class_  ? std::string(kSpaces)
              : c == 's' ? fmt::format("[{}]", kSpaces)
                         : fmt::format("[^{}]", kSpaces);
      position_ += 2;
      return;
    }
    copy(2);
    const bool braced = (c == 'p' || c == 'P' || c == 'x') && follows("{");
    if (braced) copy(std::min(pattern_.find('}', position_), pattern_.size() - 1) - position_ + 1);
  }

  void translate_in_class(char c) {
    if (c == '[') refuse(pattern_, "a class within a class");
    if (follows("&&")) refuse(pattern_, "&&");
    copy(1);
    if (c == ']') in_class_ = false;
  }

  void check_group() const {
    for (const char* kind : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (follows(kind)) return;
    }
    refuse(pattern_, fmt::format("group {}", in_quotes(pattern_.substr(position_, 4))));
  }

  void translate_outside(char c) {
    if (follows("(*")) refuse(pattern_, "a verb");
    if (follows("(?")) check_group();
    if (follows("{,")) refuse(pattern_, "{,n}");
    if (c == '{') {
      const size_t end = counted_repeat_end(pattern_, position_);
      if (end != 0 && pattern_.substr(end, 1) == "+") refuse(pattern_, "a possessive {n,m}+");
    }
    copy(1);
    if (c != '[') return;
    in_class_ = true;
    if (follows("^")) copy(1);
    if (follows("]")) refuse(pattern_, "a class that starts with ]");
  }

  std::string_view pattern_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

struct SplitPattern::Compiled {
  UniqueHandle<CodeTraits> code;
  UniqueHandle<MatchContextTraits> context;
};

SplitPattern::SplitPattern(std::string_view pattern, Syntax syntax) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes || !is_valid_utf8(pattern)) {
    refuse(pattern, fmt::format("it is not UTF-8 of 1 to {} bytes", kMaxPatternBytes));
  }
  const std::string translated =
      syntax == Syntax::kRegex ? PatternTranslator(pattern).translate() : std::string(pattern);
  // Multi-line as in Oniguruma's Ruby syntax, where ^ and $ always mean lines.
  const uint32_t options =
      PCRE2_UTF | PCRE2_NO_UTF_CHECK |
      (syntax == Syntax::kLiteral ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_unique<Compiled>();
  compiled->code.reset(
      pcre2_compile(as_pcre2(translated), translated.size(), options, &error, &offset, nullptr));
  if (!compiled->code) refuse(pattern, fmt::format("{} at {}", pcre2_message(error), offset));
  // Without JIT the interpreter runs: slower, the same matches.
  static_cast<void>(pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE));
  compiled->context.reset(pcre2_match_context_create(nullptr));
  if (!compiled->context) throw Error(StatusCode::kResourceExhausted, "no memory for a pattern");
  pcre2_set_match_limit(compiled->context.get(), kMatchLimit);
  pcre2_set_heap_limit(compiled->context.get(), kHeapLimitKib);
  compiled_ = std::move(compiled);
}

SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

Status SplitPattern::find_all(std::string_view text, std::vector<TextRange>& matches) const {
  const UniqueHandle<MatchDataTraits> data(pcre2_match_data_create(1, nullptr));
  if (!data) return resource_exhausted("no memory to match a split pattern");
  const auto match_at = [&](size_t position, uint32_t options) {
    // Without NO_UTF_CHECK every call would check the whole text again.
    return pcre2_match(compiled_->code.get(),
                       as_pcre2(text),
                       text.size(),
                       position,
                       PCRE2_NO_UTF_CHECK | options,
                       data.get(),
                       compiled_->context.get());
  };
  size_t position = 0;
  while (position < text.size()) {
    int result = match_at(position, 0);
    // JIT code has 32 KiB of stack; the interpreter keeps its frames on the heap.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match_at(position, PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return resource_exhausted(
          fmt::format("splitting the text for its tokens: {}", pcre2_message(result)));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    const TextRange match{ends[0], ends[1]};
    const bool is_empty = match.end == match.begin;
    // As in Oniguruma's users, an empty match right behind another one does not count.
    const bool touches_last = !matches.empty() && matches.back().end == match.begin;
    if (!is_empty || !touches_last) matches.push_back(match);
    position = match.end;
    if (is_empty && position < text.size()) position += utf8_size(text[position]);
  }
  return Status::ok_status();
}

}  // namespace lamina
