#include "planner/report/plan_charts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "planner/catalogue/device_catalogue.h"
#include "planner/model_source.h"

namespace lamina::planner {
namespace {

using ::testing::HasSubstr;

class PlanChartsTest : public ::testing::Test {
 protected:
  PlanChartsTest() {
    request_.space = {.max_model_devices = 4, .max_attention_devices = 4};
    advice_ = advise(request_);
    charts_ = plan_charts(request_, advice_);
  }

  [[nodiscard]] const Chart& chart(const std::string& part_of_title) const {
    const auto found = std::find_if(charts_.begin(), charts_.end(), [&](const Chart& each) {
      return each.title.find(part_of_title) != std::string::npos;
    });
    if (found == charts_.end()) throw std::out_of_range(part_of_title);
    return *found;
  }

  DeviceCatalogue catalogue_ = DeviceCatalogue::built_in();
  ModelWork model_ = read_model_work("llama3-70b");
  Load load_ = mean_load("short", 1000, 200);
  AdviceRequest request_{
      .question = {.model = &model_,
                   .load = &load_,
                   .devices = {catalogue_.priced("h100"), catalogue_.priced("h20")},
                   .assumptions = {},
                   .limit = {},
                   .measured = {}},
      .colocated_device = catalogue_.priced("h100"),
      .space = {}};
  Advice advice_;
  std::vector<Chart> charts_;
};

TEST_F(PlanChartsTest, EachHasPointsThatCanBeDrawn) {
  ASSERT_GE(charts_.size(), 5U);
  for (const Chart& each : charts_) {
    ASSERT_FALSE(each.series.empty()) << each.title;
    EXPECT_FALSE(each.x_label.empty() || each.y_label.empty()) << each.title;
    for (const ChartSeries& series : each.series) {
      ASSERT_FALSE(series.points.empty()) << each.title << ": " << series.name;
      for (const ChartPoint& point : series.points) {
        EXPECT_TRUE(std::isfinite(point.x) && std::isfinite(point.y)) << each.title;
        EXPECT_GE(point.y, 0) << each.title;
      }
    }
  }
  const std::string svg = charts_svg(charts_);
  for (const Chart& each : charts_) EXPECT_THAT(svg, HasSubstr("</text>")) << each.title;
}

// Every candidate of either kind is a point of the chart of throughput against cost.
TEST_F(PlanChartsTest, ThroughputIsOfAllCandidates) {
  size_t points = 0;
  for (const ChartSeries& series : chart("hroughput").series) points += series.points.size();
  EXPECT_GE(points, advice_.search.offloaded.size() + advice_.search.colocated.size());
}

}  // namespace
}  // namespace lamina::planner
