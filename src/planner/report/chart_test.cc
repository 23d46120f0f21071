#include "planner/report/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace lamina::planner {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Chart, TextIsEscapedAndOddPointsAreLeftOut) {
  const Chart chart{
      .title = "a < b & \"c\"",
      .x_label = "x",
      .y_label = "y",
      .is_log_x = true,
      .series = {{.name = "<s>", .points = {{0, 1}, {10, 2}, {100, NAN}, {1000, 4}}}}};
  const std::string svg = charts_svg({chart});
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; &quot;c&quot;"));
  EXPECT_THAT(svg, HasSubstr("&lt;s&gt;"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme: dark"));
  // Two points are left: a line from the axis' beginning to its end.
  EXPECT_THAT(svg, HasSubstr("d=\"M76.0 "));
  EXPECT_THAT(svg, HasSubstr("L464.0 44.0"));
}

TEST(Chart, NoPointsGiveAnEmptyChart) {
  EXPECT_THAT(charts_svg({Chart{.title = "none", .series = {{.name = "s"}}}}), HasSubstr("none"));
  EXPECT_THAT(charts_html("t", "<x>", {}), HasSubstr("<pre>&lt;x&gt;</pre>"));
}

}  // namespace
}  // namespace lamina::planner
