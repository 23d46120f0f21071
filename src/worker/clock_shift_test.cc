#include "worker/clock_shift.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

using std::chrono::microseconds;

TimePoint at(int64_t us) {
  return TimePoint(microseconds(us));
}

TEST(ClockShift, IsZeroWhereOneClockServes) {
  ClockShift clock;
  EXPECT_EQ(clock.shift(at(100), at(110), at(150), at(160)), Duration::zero());
  EXPECT_EQ(clock.shift(std::nullopt, at(210), at(250), at(260)), Duration::zero());
}

TEST(ClockShift, LiesBetweenSendAndReceive) {
  ClockShift clock;  // theirs is 1000 us ahead; 10 us each way, at best
  EXPECT_EQ(clock.shift(at(100), at(1150), at(1200), at(260)), microseconds(-995));
  EXPECT_EQ(clock.shift(at(300), at(1310), at(1350), at(360)), microseconds(-1000));
}

TEST(ClockShift, StartsAnewWhenNothingFits) {
  ClockShift clock;
  clock.shift(at(100), at(1110), at(1150), at(160));
  EXPECT_EQ(clock.shift(at(200), at(5210), at(5250), at(260)), microseconds(-5000));
}

}  // namespace
}  // namespace lamina
