// Round trips of hosts with a process at the other end: this test program once more.
#include "transport/measure/host_trips.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "base/error.h"

namespace lamina::measure {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kMaxBytes = 64 << 10;

class HostTripsTest : public testing::TestWithParam<TransportKind> {};

INSTANTIATE_TEST_SUITE_P(
    Backends,
    HostTripsTest,
    testing::Values(TransportKind::kLoopback, TransportKind::kShm, TransportKind::kTcp),
    [](const auto& tested) { return std::string(transport_name(tested.param)); });

TEST_P(HostTripsTest, MeasuresSizesInAnyOrder) {
  HostTrips trips({.kind = GetParam(), .max_bytes = kMaxBytes});
  for (const uint32_t size_bytes : {kMaxBytes, 1U, 4096U}) {
    const auto times = trips.times_us(size_bytes, milliseconds(2));
    ASSERT_TRUE(times.ok()) << times.status().to_string();
    EXPECT_FALSE(times.value().empty());
    EXPECT_TRUE(std::is_sorted(times.value().begin(), times.value().end()));
    EXPECT_GT(times.value().front(), 0.0);
  }
}

class HostTripsAcrossProcesses : public testing::TestWithParam<TransportKind> {};

INSTANTIATE_TEST_SUITE_P(Backends,
                         HostTripsAcrossProcesses,
                         testing::Values(TransportKind::kShm, TransportKind::kTcp),
                         [](const auto& tested) {
                           return std::string(transport_name(tested.param));
                         });

TEST_P(HostTripsAcrossProcesses, EndWithTheirPeer) {
  HostTrips trips({.kind = GetParam(), .max_bytes = kMaxBytes});
  ASSERT_TRUE(trips.times_us(4096, milliseconds(1)).ok());  // they talk to each other
  std::jthread killer([&] { trips.peer()->kill(); });
  const TimePoint begin = steady_clock().now();
  const auto times = trips.times_us(4096, std::chrono::seconds(30));
  EXPECT_EQ(times.status().code(), StatusCode::kUnavailable) << times.status().to_string();
  EXPECT_LT(steady_clock().now() - begin, std::chrono::seconds(10));
}

TEST(PeerProcess, LeavesNoProcessBehind) {
  pid_t pid = 0;
  {
    const HostTrips trips({.kind = TransportKind::kTcp, .max_bytes = 8});
    pid = trips.peer()->pid();
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_NE(::kill(pid, 0), 0);
}

TEST(PeerProcess, ReceivesWithinADeadline) {
  const PeerProcess peer{std::string(kPeerArgument)};  // waits for its role
  try {
    (void)receive_text(peer.socket(), Deadline::after(milliseconds(5)));
    FAIL() << "it has said something";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kDeadlineExceeded) << error.what();
  }
  peer.kill();
  try {
    (void)receive_text(peer.socket(), Deadline::after(std::chrono::seconds(10)));
    FAIL() << "it has said something";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kUnavailable) << error.what();
  }
}

}  // namespace
}  // namespace lamina::measure
