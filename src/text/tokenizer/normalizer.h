// Normalizer: what a tokenizer does to text before it looks for tokens: canonical composition
// (NFC), a prefix, replacements. Immutable.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace lamina {

struct NfcStep {};
struct PrependStep {
  std::string prefix;  // not put before an empty text
};
struct ReplaceStep {
  std::string from;  // not empty
  std::string to;
};
using NormalizerStep = std::variant<NfcStep, PrependStep, ReplaceStep>;

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  // `text` is valid UTF-8. kResourceExhausted if a step would make it longer than 128 MiB: a
  // replacement may be longer than what it replaces.
  [[nodiscard]] Result<std::string> apply(std::string_view text) const;

 private:
  std::vector<NormalizerStep> steps_;
};

// Every `from` in `text` as `to`.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

// Canonical composition in O(n log n), however many combining marks stand in a row.
std::string to_nfc(std::string_view text);

}  // namespace lamina
