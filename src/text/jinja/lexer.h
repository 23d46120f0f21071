// Lexer: template source to tokens. It settles white space as jinja2 does with trim_blocks and
// lstrip_blocks on, so that the parser sees only the text that remains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lamina::jinja {

enum class TokenKind : uint8_t {
  kData,
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kBlockBegin,   // {%
  kBlockEnd,     // %}
  kName,
  kText,
  kInteger,
  kFloat,
  kSymbol,  // operators and brackets
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;   // data, name, symbol, digits, or a text with its escapes resolved
  size_t offset = 0;  // into the normalised source
  int32_t line = 1;
};

// "\n" for every line end, and without the last one.
std::string normalise_newlines(std::string_view source);

// Throws Error kInvalidArgument, "chat template line 3, column 7: ...". `offset` is into `source`,
// which is normalised.
[[noreturn]] void fail_at(std::string_view source, size_t offset, const std::string& message);

// The tokens of a normalised source, a kEnd last.
std::vector<Token> tokenize(std::string_view source);

}  // namespace lamina::jinja
