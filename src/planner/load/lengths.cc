#include "planner/load/lengths.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace lamina::planner {
namespace {

constexpr double kMaxTokens = 1e7;

[[noreturn]] void refuse(std::string_view text) {
  throw Error(StatusCode::kInvalidArgument,
              fmt::format("'{}' is no distribution of lengths: write 1155, fixed:1155, "
                          "normal:1155:300 (mean, deviation) or zipf:1.2:8192 (exponent, longest)",
                          text));
}

double parse_number(std::string_view text, std::string_view whole) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !(number >= 0) ||
      number > kMaxTokens) {
    refuse(whole);
  }
  return number;
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    text.remove_prefix(colon + 1);
  }
}

// Box and Muller: one of the two numbers that a pair of uniform ones gives.
double draw_normal(Rng& rng) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - rng.next_double()));
  return radius * std::cos(2.0 * std::numbers::pi * rng.next_double());
}

// Of max(1, round(x)) for normal x: summed up over whole lengths, P(x >= k - 1/2).
double clamped_mean(double mean, double deviation) {
  if (deviation == 0) return std::max(1.0, std::round(mean));
  double sum = 1.0;
  const auto last = static_cast<int64_t>(mean + 8 * deviation) + 2;
  for (int64_t k = 2; k <= last; ++k) {
    const double z = (static_cast<double>(k) - 0.5 - mean) / deviation;
    sum += 0.5 * std::erfc(z / std::numbers::sqrt2);
  }
  return sum;
}

}  // namespace

LengthDistribution LengthDistribution::parse(std::string_view text) {
  LengthDistribution lengths;
  lengths.text_ = text;
  const std::vector<std::string_view> parts = split(text);
  if (parts.size() <= 2 && (parts.size() == 1 || parts[0] == "fixed")) {
    lengths.mean_ = parse_number(parts.back(), text);
    if (lengths.mean_ < 1) refuse(text);
  } else if (parts.size() == 3 && parts[0] == "normal") {
    lengths.kind_ = Kind::kNormal;
    lengths.location_ = parse_number(parts[1], text);
    lengths.deviation_ = parse_number(parts[2], text);
    if (lengths.location_ < 1) refuse(text);
    lengths.mean_ = clamped_mean(lengths.location_, lengths.deviation_);
  } else if (parts.size() == 3 && parts[0] == "zipf") {
    const double longest = parse_number(parts[2], text);
    if (longest < 1 || longest != std::floor(longest) || longest > 1e6) refuse(text);
    lengths.set_zipf(parse_number(parts[1], text), static_cast<int32_t>(longest));
  } else {
    refuse(text);
  }
  return lengths;
}

void LengthDistribution::set_zipf(double exponent, int32_t longest) {
  kind_ = Kind::kZipf;
  cumulative_.reserve(static_cast<size_t>(longest));
  double total = 0;
  double weighted = 0;
  for (int32_t k = 1; k <= longest; ++k) {
    const double weight = std::pow(k, -exponent);
    total += weight;
    weighted += k * weight;
    cumulative_.push_back(total);
  }
  for (double& value : cumulative_) value /= total;
  mean_ = weighted / total;
}

int32_t LengthDistribution::draw(Rng& rng) const {
  switch (kind_) {
    case Kind::kFixed:
      return static_cast<int32_t>(std::max(1.0, std::round(mean_)));
    case Kind::kNormal:
      return static_cast<int32_t>(
          std::clamp(std::round(location_ + deviation_ * draw_normal(rng)), 1.0, kMaxTokens));
    case Kind::kZipf: {
      const auto found =
          std::lower_bound(cumulative_.begin(), cumulative_.end() - 1, rng.next_double());
      return static_cast<int32_t>(found - cumulative_.begin()) + 1;
    }
  }
  return 1;
}

}  // namespace lamina::planner
