// Chart: series of points over two axes, as an SVG that reads on paper and in dark mode. Knows
// nothing of what it shows. Pure functions.
#pragma once

#include <string>
#include <vector>

namespace lamina::planner {

struct ChartPoint {
  double x = 0;
  double y = 0;
};

struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;
  bool has_line = true;
  bool is_dashed = false;  // a bound, not an estimate
};

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool is_log_x = false;
  bool is_log_y = false;
  std::vector<ChartSeries> series;
};

// Charts under one another as one SVG file. Points that are not finite, or not positive on a
// logarithmic axis, are left out.
std::string charts_svg(const std::vector<Chart>& charts);
// A page of charts and text, without scripts.
std::string charts_html(const std::string& title,
                        const std::string& text,
                        const std::vector<Chart>& charts);

}  // namespace lamina::planner
