// LengthDistribution: numbers of tokens of prompts or answers, as a planner is told of them where
// there is no trace. Immutable.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"

namespace lamina::planner {

class LengthDistribution {
 public:
  enum class Kind : uint8_t { kFixed, kNormal, kZipf };

  // "fixed:1155" (or "1155"), "normal:1155:300" (mean, standard deviation; at least 1),
  // "zipf:1.2:8192" (exponent, longest). A fixed length may have a fraction: that of a mean.
  // Throws Error kInvalidArgument.
  static LengthDistribution parse(std::string_view text);

  // Of what draw() gives, but for the rounding of fixed lengths.
  [[nodiscard]] double mean() const { return mean_; }
  [[nodiscard]] bool is_fixed() const { return kind_ == Kind::kFixed; }
  // At least 1.
  [[nodiscard]] int32_t draw(Rng& rng) const;
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  LengthDistribution() = default;
  void set_zipf(double exponent, int32_t longest);

  Kind kind_ = Kind::kFixed;
  std::string text_;
  double mean_ = 0;
  double location_ = 0;  // of the normal distribution, before lengths below 1 are raised to it
  double deviation_ = 0;
  std::vector<double> cumulative_;  // of Zipf: P(length <= i + 1)
};

}  // namespace lamina::planner
