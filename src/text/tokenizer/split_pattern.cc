#include "text/tokenizer/split_pattern.h"

#include <fmt/format.h>

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
constexpr uint32_t kMatchLimit = 40'000'000;
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

// Lets through what Oniguruma and PCRE2 read alike. What differs: "\h" (a hexadecimal digit there),
// "{1,3}+" (there a repetition of a repetition), "&&" in a class, "(*" (verbs).
void check_portable(std::string_view pattern) {
  constexpr std::string_view kEscapedLetters = "pPsSdDwWrntfxbBA";
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\') {
      if (++i == pattern.size()) refuse(pattern, "it ends in a backslash");
      const char c = pattern[i];
      const bool alphanumeric =
          (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      if (alphanumeric && kEscapedLetters.find(c) == std::string_view::npos) {
        refuse(pattern, fmt::format("escape \\{}", c));
      }
      const bool braced = (c == 'p' || c == 'P' || c == 'x') && pattern.substr(i + 1, 1) == "{";
      if (braced) i = std::min(pattern.find('}', i), pattern.size() - 1);
      continue;
    }
    if (pattern.substr(i, 2) == "(*") refuse(pattern, "a verb");
    if (pattern.substr(i, 2) == "&&") refuse(pattern, "&&");
    if (pattern[i] == '{') {
      const size_t end = counted_repeat_end(pattern, i);
      if (end != 0 && pattern.substr(end, 1) == "+") refuse(pattern, "a possessive {n,m}+");
    }
  }
}

}  // namespace

struct SplitPattern::Compiled {
  UniqueHandle<CodeTraits> code;
  UniqueHandle<MatchContextTraits> context;
};

SplitPattern::SplitPattern(std::string_view pattern, Syntax syntax) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes || !is_valid_utf8(pattern)) {
    refuse(pattern, fmt::format("it is not UTF-8 of 1 to {} bytes", kMaxPatternBytes));
  }
  if (syntax == Syntax::kRegex) check_portable(pattern);
  // Multi-line as in Oniguruma's Ruby syntax, where ^ and $ always mean lines.
  const uint32_t options =
      PCRE2_UTF | PCRE2_NO_UTF_CHECK |
      (syntax == Syntax::kLiteral ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_unique<Compiled>();
  compiled->code.reset(
      pcre2_compile(as_pcre2(pattern), pattern.size(), options, &error, &offset, nullptr));
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
    // A lookahead with \K could end before it starts; \K is refused, this keeps the loop moving.
    if (match.end < match.begin || match.begin < position) break;
    matches.push_back(match);
    position = match.end;
    if (match.end == match.begin && position < text.size()) position += utf8_size(text[position]);
  }
  return Status::ok_status();
}

}  // namespace lamina
