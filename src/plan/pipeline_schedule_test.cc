#include "plan/pipeline_schedule.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

TEST(PipelineSchedule, OneMicroBatchTakesTheSum) {
  const ScheduleTimes times{.first_s = 1,
                            .layer_s = 3,
                            .last_s = 4,
                            .attention_s = 2,
                            .rest_s = 2,
                            .send_s = 0.25,
                            .reply_s = 0.5,
                            .engine_s = 0.125};
  EXPECT_DOUBLE_EQ(scheduled_step_s(times, 10, 1), 1 + 9 * 3 + 4 + 10 * 2.75 + 0.125);
}

TEST(PipelineSchedule, OverlapHidesWhatFollowsQ) {
  const ScheduleTimes times{
      .first_s = 4, .layer_s = 4, .last_s = 4, .lead_share = 0.75, .attention_s = 2, .rest_s = 0.5};
  EXPECT_DOUBLE_EQ(scheduled_step_s(times, 5, 1), 6 * 4 + 5 * (2 - 1));
}

TEST(PipelineSchedule, TwoMicroBatchesKeepTheLongerPoolBusy) {
  const ScheduleTimes attention{
      .first_s = 1, .layer_s = 2, .last_s = 1, .attention_s = 3, .rest_s = 3};
  EXPECT_DOUBLE_EQ(scheduled_step_s(attention, 10, 2), 2 * 10 * 3);
  // First slices are too short to hide attention behind. Both come to theirs together: once a step.
  const ScheduleTimes slices{
      .first_s = 0.5, .layer_s = 4, .last_s = 6, .attention_s = 2, .rest_s = 2};
  EXPECT_DOUBLE_EQ(scheduled_step_s(slices, 10, 2), 2 * (0.5 + 9 * 4 + 6) + (2 - 0.5));
}

}  // namespace
}  // namespace lamina
