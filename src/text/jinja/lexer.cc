#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "text/jinja/unicode.h"

namespace lamina::jinja {
namespace {

bool is_ascii_digit(char byte) {
  return byte >= '0' && byte <= '9';
}
bool is_name_start(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_';
}
bool is_name_part(char byte) {
  return is_name_start(byte) || is_ascii_digit(byte);
}

constexpr size_t kMaxNameBytes = 256;

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t open = find_opening(at_);
      if (open == std::string_view::npos) {
        push_data(at_, source_.size());
        break;
      }
      open_tag(open);
    }
    push(TokenKind::kEnd, {}, source_.size());
    return std::move(tokens_);
  }

 private:
  [[nodiscard]] size_t find_opening(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string_view::npos;
         at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != kNone)
        return at;
    }
    return kNone;
  }

  void open_tag(size_t open) {
    const char kind = source_[open + 1];
    const size_t text_begin = at_;
    at_ = open + 2;
    const char sign = peek() == '-' || peek() == '+' ? source_[at_++] : '\0';
    const bool may_strip = kind != '{';
    push_data(text_begin, data_end(text_begin, open, sign, may_strip, at_line_start_));
    if (kind == '#') return comment(open);
    if (kind == '%' && raw_tag("raw", true)) return raw_block(open);
    push(kind == '{' ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, {}, open);
    expression(open, kind == '{');
  }

  // Where the text before a tag ends: "-" strips white space, and lstrip_blocks the indentation of
  // a tag that opens its line.
  [[nodiscard]] size_t data_end(
      size_t begin, size_t end, char sign, bool may_strip, bool at_line_start) const {
    const std::string_view text = source_.substr(begin, end - begin);
    if (sign == '-') return begin + strip(text, {.left = false, .right = true}).size();
    if (sign == '+' || !may_strip) return end;
    const size_t newline = text.rfind('\n');
    const size_t line = newline == kNone ? 0 : newline + 1;
    if (line == 0 && !at_line_start) return end;
    return strip(text.substr(line)).empty() ? begin + line : end;
  }

  void comment(size_t open) {
    const size_t close = source_.find("#}", at_);
    if (close == kNone) fail_at(source_, open, "the comment has no end, '#}'");
    const char sign = close > at_ ? source_[close - 1] : '\0';
    at_ = close + 2;
    after_tag(sign, true);
  }

  // White space after a tag: "-" strips all, else trim_blocks the newline.
  void after_tag(char sign, bool trims) {
    const size_t from = at_;
    if (sign == '-') {
      const std::string_view rest = source_.substr(at_);
      at_ += rest.size() - strip(rest, {.left = true, .right = false}).size();
    } else if (trims && sign != '+' && peek() == '\n') {
      ++at_;
    }
    at_line_start_ = at_ > from && source_[at_ - 1] == '\n';
  }

  // At "raw %}" or "endraw %}", behind the opening "{%" and its sign: consumes it.
  bool raw_tag(std::string_view name, bool begins) {
    size_t at = skip_space(at_);
    if (source_.substr(at, name.size()) != name) return false;
    at = skip_space(at + name.size());
    const char sign = at < source_.size() ? source_[at] : '\0';
    const bool has_sign = sign == '-' || (sign == '+' && !begins);
    if (source_.substr(at + (has_sign ? 1 : 0), 2) != "%}") return false;
    at_ = at + (has_sign ? 3 : 2);
    after_tag(has_sign ? sign : '\0', !begins);
    return true;
  }

  void raw_block(size_t open) {
    const size_t begin = at_;
    const bool at_line_start = at_line_start_;
    for (size_t end = source_.find("{%", at_); end != kNone; end = source_.find("{%", end + 1)) {
      at_ = end + 2;
      const char sign = peek() == '-' || peek() == '+' ? source_[at_++] : '\0';
      if (!raw_tag("endraw", false)) continue;
      return push_data(begin, data_end(begin, end, sign, true, at_line_start));
    }
    fail_at(source_, open, "the raw block has no end, '{% endraw %}'");
  }

  void expression(size_t open, bool is_output) {
    const std::string_view end = is_output ? "}}" : "%}";
    brackets_.clear();
    for (;;) {
      at_ = skip_space(at_);
      if (at_ >= source_.size())
        fail_at(source_, open, fmt::format("the tag has no end, '{}'", end));
      const char sign = peek() == '-' || (peek() == '+' && !is_output) ? peek() : '\0';
      const size_t close = at_ + (sign == '\0' ? 0 : 1);
      if (brackets_.empty() && source_.substr(close, 2) == end) {
        push(is_output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, {}, at_);
        at_ = close + 2;
        return after_tag(sign, !is_output);
      }
      token();
    }
  }

  void token() {
    const char first = peek();
    if (is_name_start(first)) {
      const size_t end = skip_name(at_);
      // Names are compared and copied wherever they stand, at the price of one step.
      if (end - at_ > kMaxNameBytes)
        fail_at(source_, at_, fmt::format("a name of more than {} characters", kMaxNameBytes));
      push(TokenKind::kName, source_.substr(at_, end - at_), at_);
      at_ = end;
    } else if (is_ascii_digit(first)) {
      number();
    } else if (first == '"' || first == '\'') {
      text(first);
    } else {
      symbol();
    }
  }

  // Digits, with Python's underscores between them.
  [[nodiscard]] size_t skip_digits(size_t at) const {
    while (at < source_.size() &&
           (is_ascii_digit(source_[at]) ||
            (source_[at] == '_' && at + 1 < source_.size() && is_ascii_digit(source_[at + 1]))))
      ++at;
    return at;
  }

  void number() {
    const bool may_be_float = at_ == 0 || source_[at_ - 1] != '.';  // "items.0.1" has none
    size_t end = skip_digits(at_);
    TokenKind kind = TokenKind::kInteger;
    const auto digit_at = [this](size_t at) {
      return at < source_.size() && is_ascii_digit(source_[at]);
    };
    if (may_be_float && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      kind = TokenKind::kFloat;
      end = skip_digits(end + 1);
    }
    if (may_be_float && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const size_t power =
          end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-')
              ? end + 2
              : end + 1;
      if (digit_at(power)) {
        kind = TokenKind::kFloat;
        end = skip_digits(power);
      }
    }
    if (end < source_.size() && is_name_start(source_[end]))
      fail_at(source_, at_, "a number runs into a name; only decimal numbers are supported");
    std::string digits(source_.substr(at_, end - at_));
    std::erase(digits, '_');
    const bool is_zero = digits.find_first_not_of('0') == std::string::npos;
    if (kind == TokenKind::kInteger && digits.size() > 1 && digits[0] == '0' && !is_zero)
      fail_at(source_, at_, "a number with a leading zero");
    push(kind, digits, at_);
    at_ = end;
  }

  void text(char quote) {
    const size_t begin = at_;
    std::string value;
    for (++at_; at_ < source_.size() && source_[at_] != quote;) {
      if (source_[at_] == '\\') {
        escape(value, begin);
      } else {
        value += source_[at_++];
      }
    }
    if (at_ >= source_.size()) fail_at(source_, begin, "the text has no closing quote");
    ++at_;
    push(TokenKind::kText, value, begin);
  }

  // As Python's string literals: an unknown escape stays as it is.
  void escape(std::string& value, size_t begin) {
    if (++at_ >= source_.size()) fail_at(source_, begin, "the text has no closing quote");
    const char letter = source_[at_++];
    static constexpr std::string_view kLetters = "\\'\"abfnrtv";
    static constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t known = kLetters.find(letter); known != kNone) {
      value += kMeanings[known];
    } else if (letter == '\n') {
      return;
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      append_code(value, digits_of(letter == 'x' ? 2 : letter == 'u' ? 4 : 8), begin);
    } else if (letter >= '0' && letter <= '7') {
      --at_;
      append_code(value, octal(), begin);
    } else if (letter == 'N') {
      fail_at(source_, at_ - 2, "named characters, \\N{...}, are not supported");
    } else {
      value += '\\';
      value += letter;
    }
  }

  [[nodiscard]] char32_t digits_of(size_t count) {
    char32_t code = 0;
    for (size_t i = 0; i < count; ++i, ++at_) {
      static constexpr std::string_view kDigits = "0123456789abcdef";
      const char digit = peek();
      const size_t number =
          kDigits.find(digit >= 'A' && digit <= 'F' ? static_cast<char>(digit | 0x20) : digit);
      if (number == kNone) fail_at(source_, at_, "a hexadecimal digit is needed here");
      code = code * 16 + static_cast<char32_t>(number);
    }
    return code;
  }

  [[nodiscard]] char32_t octal() {
    char32_t code = 0;
    for (int i = 0; i < 3 && peek() >= '0' && peek() <= '7'; ++i)
      code = code * 8 + static_cast<char32_t>(source_[at_++] - '0');
    return code;
  }

  void append_code(std::string& value, char32_t code, size_t begin) const {
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
      fail_at(source_, begin, "an escape is not a Unicode character");
    append_char(value, code);
  }

  void symbol() {
    static constexpr std::array<std::string_view, 6> kDouble = {"==", "!=", "<=", ">=", "//", "**"};
    static constexpr std::string_view kSingle = "+-*/%~<>=.,:|()[]{}";
    const std::string_view pair = source_.substr(at_, 2);
    const bool is_pair = std::find(kDouble.begin(), kDouble.end(), pair) != kDouble.end();
    if (!is_pair && kSingle.find(peek()) == kNone) {
      fail_at(
          source_,
          at_,
          fmt::format("unexpected character '{}'", source_.substr(at_, char_size(source_, at_))));
    }
    const std::string_view symbol = is_pair ? pair : source_.substr(at_, 1);
    balance(symbol.front());
    push(TokenKind::kSymbol, symbol, at_);
    at_ += symbol.size();
  }

  // Inside brackets "}}" closes dicts, not the tag.
  void balance(char symbol) {
    static constexpr std::string_view kOpen = "([{";
    static constexpr std::string_view kClose = ")]}";
    if (kOpen.find(symbol) != kNone) {
      brackets_.push_back(kClose[kOpen.find(symbol)]);
    } else if (kClose.find(symbol) != kNone) {
      if (brackets_.empty() || brackets_.back() != symbol)
        fail_at(source_, at_, fmt::format("unexpected '{}'", symbol));
      brackets_.pop_back();
    }
  }

  [[nodiscard]] char peek() const { return at_ < source_.size() ? source_[at_] : '\0'; }
  [[nodiscard]] size_t skip_name(size_t at) const {
    while (at < source_.size() && is_name_part(source_[at])) ++at;
    return at;
  }
  [[nodiscard]] size_t skip_space(size_t at) const {
    while (at < source_.size() && is_space(char_at(source_, at))) at += char_size(source_, at);
    return at;
  }

  void push(TokenKind kind, std::string_view text, size_t offset) {
    const std::string_view passed = source_.substr(counted_, offset - counted_);
    line_ += static_cast<int32_t>(std::count(passed.begin(), passed.end(), '\n'));
    counted_ = offset;
    tokens_.push_back({kind, std::string(text), offset, line_});
  }
  void push_data(size_t begin, size_t end) {
    if (end > begin) push(TokenKind::kData, source_.substr(begin, end - begin), begin);
  }

  static constexpr size_t kNone = std::string_view::npos;

  std::string_view source_;
  size_t at_ = 0;
  bool at_line_start_ = true;  // nothing, or a newline, stands before at_
  std::string brackets_;       // the closing brackets that are due
  size_t counted_ = 0;         // up to where line_ has counted
  int32_t line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::string normalise_newlines(std::string_view source) {
  std::string normal;
  normal.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    normal += source[i] == '\r' ? '\n' : source[i];
  }
  if (normal.ends_with('\n')) normal.pop_back();
  return normal;
}

void fail_at(std::string_view source, size_t offset, const std::string& message) {
  offset = std::min(offset, source.size());
  const size_t newline = source.substr(0, offset).rfind('\n');
  const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
  const std::string_view before = source.substr(0, offset);
  throw Error(StatusCode::kInvalidArgument,
              fmt::format("chat template line {}, column {}: {}",
                          std::count(before.begin(), before.end(), '\n') + 1,
                          count_chars(source.substr(line_begin, offset - line_begin)) + 1,
                          message));
}

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace lamina::jinja
