#include "planner/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/xml.h"

namespace lamina::planner {
namespace {

// Pixels.
constexpr int kWidth = 480;  // a telephone shows it without shrinking it much
constexpr int kHeight = 430;
constexpr int kLeft = 76;
constexpr int kRight = 16;
constexpr int kTop = 44;
constexpr int kLegend = 66;  // up to six series in two columns
constexpr int kBottom = kLegend + 52;
constexpr int kColours = 6;

// Colours that are told apart without red and green, darker on white than on black; marks differ in
// shape by line style too, for paper.
constexpr const char* kStyle = R"(<style>
  .ground { fill: #ffffff } .text { fill: #1d1d1b } .faint { fill: #55554f }
  .grid { stroke: #d8d8d2 } .axis { stroke: #1d1d1b; fill: none }
  .line { fill: none; stroke-width: 2 } .dash { stroke-dasharray: 6 4 }
  .c0 .line { stroke: #0b5fa5 } .c0 .mark { fill: #0b5fa5 }
  .c1 .line { stroke: #b3540a } .c1 .mark { fill: #b3540a }
  .c2 .line { stroke: #1a7f5a } .c2 .mark { fill: #1a7f5a }
  .c3 .line { stroke: #8b3d88 } .c3 .mark { fill: #8b3d88 }
  .c4 .line { stroke: #6b6b00 } .c4 .mark { fill: #6b6b00 }
  .c5 .line { stroke: #444444 } .c5 .mark { fill: #444444 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #16161a } .text { fill: #ececea } .faint { fill: #b4b4ae }
    .grid { stroke: #3a3a40 } .axis { stroke: #ececea }
    .c0 .line { stroke: #6db6ff } .c0 .mark { fill: #6db6ff }
    .c1 .line { stroke: #ffac5e } .c1 .mark { fill: #ffac5e }
    .c2 .line { stroke: #5fd3a4 } .c2 .mark { fill: #5fd3a4 }
    .c3 .line { stroke: #dd97da } .c3 .mark { fill: #dd97da }
    .c4 .line { stroke: #d8d860 } .c4 .mark { fill: #d8d860 }
    .c5 .line { stroke: #c8c8c8 } .c5 .mark { fill: #c8c8c8 }
  }
</style>
)";

// One axis: values to pixels, and round values to mark.
class Axis {
 public:
  Axis(bool is_log, double low, double high, int from, int to)
      : is_log_(is_log), from_(from), to_(to) {
    if (is_log) {
      low_ = std::log10(low);
      high_ = std::max(low_ + 0.3, std::log10(high));
      add_log_ticks();
      return;
    }
    low_ = 0;
    const double step = round_step(high / 5);
    high_ = std::max(step, std::ceil(high / step - 1e-9) * step);
    for (double v = 0; v <= high_ * (1 + 1e-9); v += step) ticks_.push_back(v);
  }

  [[nodiscard]] bool shows(double value) const {
    return std::isfinite(value) && (!is_log_ || value > 0);
  }
  [[nodiscard]] double at(double value) const {
    const double v = is_log_ ? std::log10(value) : value;
    return from_ + (v - low_) / (high_ - low_) * (to_ - from_);
  }
  [[nodiscard]] const std::vector<double>& ticks() const { return ticks_; }

 private:
  // Powers of ten; 2 and 5 times them too where there are few.
  void add_log_ticks() {
    const bool is_short = high_ - low_ < 2.5;
    for (double e = std::floor(low_); e <= high_; ++e) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double tick = factor * std::pow(10, e);
        const double at = std::log10(tick);
        const bool is_in = at >= low_ - 1e-9 && at <= high_ + 1e-9;
        if (is_in && (factor == 1.0 || is_short)) ticks_.push_back(tick);
      }
    }
  }

  // 1, 2 or 5 times a power of ten.
  static double round_step(double step) {
    const double power = std::pow(10, std::floor(std::log10(std::max(step, 1e-12))));
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (step <= factor * power * (1 + 1e-9)) return factor * power;
    }
    return 10 * power;
  }

  bool is_log_;
  double low_ = 0;
  double high_ = 1;
  int from_;
  int to_;
  std::vector<double> ticks_;
};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = 0;

  void add(double value, bool is_log) {
    if (!std::isfinite(value) || (is_log && value <= 0)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

std::string text_at(double x, double y, const char* style, std::string_view text) {
  return fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, style, xml_escaped(text));
}

std::string axes(const Chart& chart, const Axis& x, const Axis& y) {
  std::string out;
  for (const double tick : x.ticks()) {
    const double at = x.at(tick);
    out +=
        fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>\n",
                    at,
                    kTop,
                    kHeight - kBottom);
    out += text_at(at,
                   kHeight - kBottom + 18,
                   "class=\"faint\" text-anchor=\"middle\"",
                   fmt::format("{:g}", tick));
  }
  for (const double tick : y.ticks()) {
    const double at = y.at(tick);
    out +=
        fmt::format("<line class=\"grid\" x1=\"{1}\" x2=\"{2}\" y1=\"{0:.1f}\" y2=\"{0:.1f}\"/>\n",
                    at,
                    kLeft,
                    kWidth - kRight);
    out += text_at(
        kLeft - 8, at + 4, "class=\"faint\" text-anchor=\"end\"", fmt::format("{:g}", tick));
  }
  out += fmt::format("<path class=\"axis\" fill=\"none\" d=\"M{0} {1} V{2} H{3}\"/>\n",
                     kLeft,
                     kTop,
                     kHeight - kBottom,
                     kWidth - kRight);
  out += text_at(16, 26, "class=\"text\" font-size=\"15\" font-weight=\"bold\"", chart.title);
  out += text_at((kLeft + kWidth - kRight) / 2.0,
                 kHeight - kBottom + 40,
                 "class=\"text\" text-anchor=\"middle\"",
                 chart.x_label);
  return out + fmt::format(
                   "<text class=\"text\" text-anchor=\"middle\" transform=\"translate(16 {}) "
                   "rotate(-90)\">{}</text>\n",
                   (kTop + kHeight - kBottom) / 2,
                   xml_escaped(chart.y_label));
}

// Circles and squares in turn, so that paper without colours tells neighbours apart.
std::string mark(double x, double y, size_t idx) {
  if (idx % 2 == 0) {
    return fmt::format("<circle class=\"mark\" r=\"3\" cx=\"{:.1f}\" cy=\"{:.1f}\"/>\n", x, y);
  }
  return fmt::format(
      "<rect class=\"mark\" width=\"6\" height=\"6\" x=\"{:.1f}\" y=\"{:.1f}\"/>\n", x - 3, y - 3);
}

std::string legend_entry(const ChartSeries& series, size_t idx) {
  constexpr int kColumns = 2;
  const int column = static_cast<int>(idx) % kColumns;
  const int row = static_cast<int>(idx) / kColumns;
  const int left = 20 + column * (kWidth - 20) / kColumns;
  const int at = kHeight - kLegend + 14 + 20 * row;
  std::string out = fmt::format("<g class=\"c{}\">\n", idx % kColours);
  if (series.has_line) {
    out += fmt::format(
        "<path class=\"line{}\" d=\"M{} {} h22\"/>\n", series.is_dashed ? " dash" : "", left, at);
  }
  if (!series.is_dashed) out += mark(left + 11, at, idx);
  return out + "</g>\n" + text_at(left + 28, at + 4, "class=\"text\"", series.name);
}

std::string series_svg(const ChartSeries& series, const Axis& x, const Axis& y, size_t idx) {
  std::string path;
  std::string marks;
  for (const ChartPoint& point : series.points) {
    if (!x.shows(point.x) || !y.shows(point.y)) continue;
    path += fmt::format("{}{:.1f} {:.1f} ", path.empty() ? "M" : "L", x.at(point.x), y.at(point.y));
    marks += mark(x.at(point.x), y.at(point.y), idx);
  }
  std::string out = fmt::format("<g class=\"c{}\">\n", idx % kColours);
  if (series.has_line && !path.empty()) {
    out +=
        fmt::format("<path class=\"line{}\" d=\"{}\"/>\n", series.is_dashed ? " dash" : "", path);
  }
  if (!series.is_dashed) out += marks;
  return out + "</g>\n" + legend_entry(series, idx);
}

std::string chart_svg(const Chart& chart, int top) {
  Range xs;
  Range ys;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      xs.add(point.x, chart.is_log_x);
      ys.add(point.y, chart.is_log_y);
    }
  }
  if (!std::isfinite(xs.low) || !std::isfinite(ys.low)) xs = ys = {1, 10};
  const Axis x(chart.is_log_x, xs.low, xs.high, kLeft, kWidth - kRight);
  const Axis y(chart.is_log_y, ys.low, ys.high, kHeight - kBottom, kTop);
  std::string out = fmt::format("<g transform=\"translate(0 {})\">\n", top) + axes(chart, x, y);
  for (size_t i = 0; i < chart.series.size(); ++i) out += series_svg(chart.series[i], x, y, i);
  return out + "</g>\n";
}

// Room for so many charts under one another.
std::string svg_begin(int num_charts) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"sans-serif\" font-size=\"12\">\n",
      kWidth,
      num_charts * kHeight);
}

std::string ground(int num_charts) {
  return fmt::format(
      "<rect class=\"ground\" width=\"{}\" height=\"{}\"/>\n", kWidth, num_charts * kHeight);
}

}  // namespace

std::string charts_svg(const std::vector<Chart>& charts) {
  const int room = static_cast<int>(std::max<size_t>(charts.size(), 1));
  std::string out = svg_begin(room) + kStyle + ground(room);
  for (size_t i = 0; i < charts.size(); ++i) {
    out += chart_svg(charts[i], static_cast<int>(i) * kHeight);
  }
  return out + "</svg>\n";
}

// A drawing each, side by side where there is room.
std::string charts_html(const std::string& title,
                        const std::string& text,
                        const std::vector<Chart>& charts) {
  std::string drawings;
  for (const Chart& chart : charts) {
    drawings += svg_begin(1) + ground(1) + chart_svg(chart, 0) + "</svg>\n";
  }
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<style>:root {{ color-scheme: light dark }} body {{ margin: 1em; font-family: sans-serif "
      "}}\n"
      "h1 {{ font-size: 1.4em }} pre {{ overflow-x: auto }} svg {{ width: 100%; height: auto }}\n"
      ".charts {{ display: grid; gap: 1em; max-width: 110em; "
      "grid-template-columns: repeat(auto-fit, minmax(min(24em, 100%), 1fr)) "
      "}}</style>\n{3}</head>\n"
      "<body><h1>{0}</h1>\n<div class=\"charts\">\n{1}</div>\n<pre>{2}</pre></body></html>\n",
      xml_escaped(title),
      drawings,
      xml_escaped(text),
      kStyle);
}

}  // namespace lamina::planner
