#include "planner/load/trace_files.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "model/json_fields.h"

namespace lamina::planner {
namespace {

constexpr size_t kMaxFileBytes = 256 << 20;
constexpr size_t kMaxRequests = 5'000'000;
constexpr int64_t kMaxTokens = 10'000'000;

// Lines of a text with their numbers, without line ends (LF or CR LF).
class Lines {
 public:
  Lines(std::string_view text, const std::string& source) : rest_(text), source_(source) {}

  // False at the end.
  bool next() {
    if (rest_.empty()) return false;
    const size_t end = rest_.find('\n');
    line_ = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (line_.ends_with('\r')) line_.remove_suffix(1);
    ++number_;
    return true;
  }
  [[nodiscard]] std::string_view line() const { return line_; }
  [[nodiscard]] std::string where() const { return fmt::format("{}:{}", source_, number_); }
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(StatusCode::kInvalidArgument, fmt::format("{}: {}", where(), what));
  }

 private:
  std::string_view rest_;
  std::string_view line_;
  const std::string& source_;
  size_t number_ = 0;
};

// Takes requests in, checked; arrival times become those since the first.
class Collector {
 public:
  explicit Collector(const Lines& lines) : lines_(lines) {}

  void add(double at_s, int64_t prompt, int64_t generated) {
    if (prompt < 1 || prompt > kMaxTokens || generated < 0 || generated > kMaxTokens) {
      lines_.refuse(fmt::format("{} prompt and {} generated tokens: not in 1 and 0 to {}",
                                prompt,
                                generated,
                                kMaxTokens));
    }
    if (requests_.size() == kMaxRequests) {
      lines_.refuse(fmt::format("more than {} requests", kMaxRequests));
    }
    if (requests_.empty()) first_s_ = at_s;
    const double arrives_s = at_s - first_s_;
    if (!requests_.empty() && arrives_s < requests_.back().arrives_s) {
      lines_.refuse("requests are not in order of time");
    }
    // One that generates nothing takes no part in decoding.
    if (generated == 0) return;
    requests_.push_back({arrives_s, static_cast<int32_t>(prompt), static_cast<int32_t>(generated)});
  }

  Load finish(const std::string& source) {
    if (requests_.empty()) lines_.refuse("no requests");
    return load_of(std::filesystem::path(source).stem().string(), std::move(requests_));
  }

 private:
  const Lines& lines_;
  std::vector<LoadRequest> requests_;
  double first_s_ = 0;
};

template <typename T>
std::optional<T> whole_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "2023-11-16 18:15:46.6805900" as seconds since 1970; nothing for another form.
std::optional<double> parse_time(std::string_view text) {
  constexpr std::string_view kForm = "0000-00-00 00:00:00";
  if (text.size() < kForm.size()) return std::nullopt;
  for (size_t i = 0; i < kForm.size(); ++i) {
    const bool is_digit = text[i] >= '0' && text[i] <= '9';
    if (kForm[i] == '0' ? !is_digit : text[i] != kForm[i]) return std::nullopt;
  }
  const auto field = [&](size_t at, size_t size) {
    return *whole_number<unsigned>(text.substr(at, size));
  };
  const std::chrono::year_month_day day{std::chrono::year(static_cast<int>(field(0, 4))),
                                        std::chrono::month(field(5, 2)),
                                        std::chrono::day(field(8, 2))};
  if (!day.ok() || field(11, 2) > 23 || field(14, 2) > 59 || field(17, 2) > 60) return std::nullopt;
  double fraction = 0;
  if (text.size() > kForm.size()) {
    const std::string_view tail = text.substr(kForm.size());
    const auto digits = whole_number<uint64_t>(tail.substr(1));
    if (tail[0] != '.' || tail.size() > 10 || !digits) return std::nullopt;
    fraction =
        static_cast<double>(*digits) * std::pow(10.0, 1.0 - static_cast<double>(tail.size()));
  }
  const auto days = std::chrono::sys_days(day).time_since_epoch().count();
  return 86400.0 * static_cast<double>(days) + 3600.0 * field(11, 2) + 60.0 * field(14, 2) +
         field(17, 2) + fraction;
}

}  // namespace

Load parse_azure_trace(std::string_view text, const std::string& source) {
  Lines lines(text, source);
  Collector requests(lines);
  constexpr std::string_view kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
  if (!lines.next() || lines.line() != kHeader) {
    lines.refuse(fmt::format("an Azure trace begins with '{}'", kHeader));
  }
  while (lines.next()) {
    const std::string_view line = lines.line();
    const size_t first = line.find(',');
    const size_t second = line.find(',', first == std::string_view::npos ? first : first + 1);
    if (second == std::string_view::npos) lines.refuse("three values, with commas, are expected");
    const auto at = parse_time(line.substr(0, first));
    const auto prompt = whole_number<int64_t>(line.substr(first + 1, second - first - 1));
    const auto generated = whole_number<int64_t>(line.substr(second + 1));
    if (!at) lines.refuse("no time as 2023-11-16 18:15:46.6805900");
    if (!prompt || !generated) lines.refuse("numbers of tokens are whole numbers");
    requests.add(*at, *prompt, *generated);
  }
  return requests.finish(source);
}

Load parse_mooncake_trace(std::string_view text, const std::string& source) {
  Lines lines(text, source);
  Collector requests(lines);
  while (lines.next()) {
    const nlohmann::json object = parse_json_object(lines.line(), lines.where());
    const JsonFields fields(object, lines.where());
    const auto at_ms = fields.number("timestamp", {-1e15, 1e15});
    if (!at_ms) lines.refuse("'timestamp' is missing");
    requests.add(1e-3 * *at_ms,
                 fields.required_integer("input_length", {1, kMaxTokens}),
                 fields.required_integer("output_length", {0, kMaxTokens}));
  }
  return requests.finish(source);
}

Load read_trace(const std::filesystem::path& path) {
  const std::string text = read_text_file(path, kMaxFileBytes);
  if (path.extension() == ".csv") return parse_azure_trace(text, path.string());
  if (path.extension() == ".jsonl") return parse_mooncake_trace(text, path.string());
  throw Error(
      StatusCode::kInvalidArgument,
      fmt::format("'{}': a trace ends in .csv (Azure) or .jsonl (Mooncake)", path.string()));
}

}  // namespace lamina::planner
