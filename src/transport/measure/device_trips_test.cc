// Round trips of devices between two CPUs, by polling: what GPUs do, without one.
#include "transport/measure/device_trips.h"

#include <gtest/gtest.h>

#include <thread>

namespace lamina::measure {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kMaxBytes = 256 << 10;
constexpr DeviceTrips::Config kCpuAndCpu = {.ours = {}, .peers = {}, .max_bytes = kMaxBytes};

TEST(DeviceTrips, CpusMeasureEachForm) {
  DeviceTrips trips(kCpuAndCpu);
  for (const auto form : {cuda_p2p::Form::kLines, cuda_p2p::Form::kPushed}) {
    for (const uint32_t size_bytes : {8U, 40'000U, kMaxBytes}) {
      const TripKind kind = {.form = form};
      if (!kind.can_carry(size_bytes)) continue;
      const auto times = trips.times_us(kind, size_bytes, milliseconds(2));
      ASSERT_TRUE(times.ok()) << times.status().to_string();
      EXPECT_GT(times.value().front(), 0.0);
    }
  }
}

TEST(DeviceTrips, EndWithTheirPeer) {
  DeviceTrips trips(kCpuAndCpu);
  ASSERT_TRUE(trips.times_us({}, 4096, milliseconds(1)).ok());  // they talk to each other
  std::jthread killer([&] { trips.peer().kill(); });
  const TimePoint begin = steady_clock().now();
  const auto times = trips.times_us({}, 4096, std::chrono::seconds(30));
  EXPECT_EQ(times.status().code(), StatusCode::kUnavailable) << times.status().to_string();
  EXPECT_LT(steady_clock().now() - begin, std::chrono::seconds(5));
}

TEST(TripKind, LinesCarrySmallMessagesAlone) {
  const TripKind lines;
  const TripKind pushed = {.form = cuda_p2p::Form::kPushed};
  EXPECT_TRUE(lines.can_carry(128 << 10));
  EXPECT_FALSE(lines.can_carry((128 << 10) + 1));
  EXPECT_EQ(lines.plan(8).form, cuda_p2p::Form::kLines);
  EXPECT_EQ(pushed.plan(8).form, cuda_p2p::Form::kPushed);
  const TripKind parts = {.form = cuda_p2p::Form::kPushed, .part_bytes = 16 << 10};
  EXPECT_EQ(parts.plan(1 << 20).num_parts, 64U);
}

}  // namespace
}  // namespace lamina::measure
