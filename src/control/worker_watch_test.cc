#include "control/worker_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "control/control_testing.h"

namespace lamina::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr uint64_t kEpoch = 1;
constexpr uint64_t kIncarnation = 11;

class WorkerWatchTest : public testing::Test {
 protected:
  // Ticks until an event or until `limit` passed on the clock.
  std::optional<WorkerEvent> run(Duration limit) {
    const Deadline end = Deadline::after(limit, clock_);
    while (!end.has_passed(clock_)) {
      clock_.advance(std::min(watch_.time_to_tick(), end.remaining(clock_)));
      if (auto event = watch_.tick()) return event;
    }
    return std::nullopt;
  }

  void make_watched() {
    const auto event = run(seconds(1));
    ASSERT_TRUE(event && std::holds_alternative<WorkerAvailable>(*event));
    watch_.watch(kEpoch, kIncarnation);
    ASSERT_FALSE(run(seconds(5)));
    ASSERT_EQ(watch_.snapshot().state, WatchState::kWatched);
  }

  // The next event, which must be a WorkerDown.
  WorkerDown expect_down(DownCause cause, Duration limit) {
    const auto event = run(limit);
    if (!event || !std::holds_alternative<WorkerDown>(*event)) {
      ADD_FAILURE() << "no WorkerDown came";
      return {};
    }
    const auto& down = std::get<WorkerDown>(*event);
    EXPECT_EQ(down_cause_name(down.cause), down_cause_name(cause)) << down.reason;
    EXPECT_EQ(down.epoch, kEpoch);
    EXPECT_EQ(watch_.snapshot().state, WatchState::kUnreachable);
    return down;
  }

  ManualClock clock_;
  FakeWorker worker_{clock_};
  WorkerWatch watch_{WorkerMonitorConfig{}, worker_, clock_};
};

TEST_F(WorkerWatchTest, AnAnsweringWorkerIsAvailableOnce) {
  const auto event = run(seconds(1));
  ASSERT_TRUE(event);
  EXPECT_EQ(std::get<WorkerAvailable>(*event).info, worker_.info);
  EXPECT_EQ(watch_.snapshot().state, WatchState::kAvailable);
  EXPECT_FALSE(run(seconds(10)));
  EXPECT_GE(worker_.num_describes, 20);  // still looked at, every 500 ms
}

TEST_F(WorkerWatchTest, AnAvailableWorkerThatRestartsIsAvailableAgain) {
  ASSERT_TRUE(run(seconds(1)));
  worker_.info.incarnation = 12;
  const auto event = run(seconds(1));
  ASSERT_TRUE(event);
  EXPECT_EQ(std::get<WorkerAvailable>(*event).info.incarnation, 12U);
}

TEST_F(WorkerWatchTest, AnAvailableWorkerThatGoesAwayIsAvailableAgainWhenBack) {
  ASSERT_TRUE(run(seconds(1)));
  worker_.error = unavailable("gone");
  EXPECT_FALSE(run(seconds(5)));
  EXPECT_EQ(watch_.snapshot().state, WatchState::kUnreachable);
  EXPECT_EQ(watch_.snapshot().last_error.message(), "gone");
  worker_.error = {};
  EXPECT_TRUE(run(seconds(2)));
  EXPECT_TRUE(watch_.snapshot().last_error.ok());
}

TEST_F(WorkerWatchTest, BackOffGrowsToASecondAndStaysThere) {
  worker_.error = unavailable("not started yet");
  EXPECT_FALSE(run(seconds(60)));
  // 100, 200, 400, 800 ms, then one a second.
  EXPECT_GE(worker_.num_describes, 60);
  EXPECT_LE(worker_.num_describes, 64);
  worker_.error = {};
  EXPECT_TRUE(run(seconds(1) + milliseconds(1)));
}

TEST_F(WorkerWatchTest, HeartbeatsComeTwiceASecond) {
  make_watched();
  const int before = worker_.num_heartbeats;
  EXPECT_FALSE(run(seconds(10)));
  EXPECT_EQ(worker_.num_heartbeats - before, 20);
  EXPECT_EQ(worker_.last_epoch, kEpoch);
  EXPECT_EQ(watch_.snapshot().stats, worker_.stats);
  EXPECT_EQ(watch_.snapshot().num_downs, 0U);
}

TEST_F(WorkerWatchTest, TwoFailedCallsInARowAreDownWithinASecond) {
  make_watched();
  worker_.error = unavailable("connection refused");
  const TimePoint killed = clock_.now();
  const WorkerDown down = expect_down(DownCause::kUnreachable, seconds(3));
  EXPECT_LE(clock_.now() - killed, seconds(1));
  EXPECT_THAT(down.reason, HasSubstr("connection refused"));
  EXPECT_EQ(watch_.snapshot().num_downs, 1U);
}

TEST_F(WorkerWatchTest, OneFailedCallIsForgiven) {
  make_watched();
  for (int i = 0; i < 5; ++i) {
    worker_.error = unavailable("blip");
    clock_.advance(watch_.time_to_tick());
    EXPECT_FALSE(watch_.tick());
    worker_.error = {};
    EXPECT_FALSE(run(seconds(1)));
  }
}

TEST_F(WorkerWatchTest, SilenceIsDownAfterTheSilenceLimit) {
  make_watched();
  worker_.silent = true;
  const TimePoint stopped = clock_.now();
  const WorkerDown down = expect_down(DownCause::kSilent, seconds(5));
  EXPECT_LE(clock_.now() - stopped, milliseconds(2500));
  EXPECT_THAT(down.reason, HasSubstr("no heartbeat for 2.0 s"));
}

TEST_F(WorkerWatchTest, SlowAnswersBelowTheLimitAreNotDown) {
  make_watched();
  worker_.during_call = [this] { clock_.advance(milliseconds(900)); };
  EXPECT_FALSE(run(seconds(30)));
}

TEST_F(WorkerWatchTest, AfterOurOwnPauseTheWorkerStillHasItsChance) {
  make_watched();
  clock_.advance(seconds(3600));
  EXPECT_FALSE(run(seconds(2)));
  EXPECT_EQ(watch_.snapshot().state, WatchState::kWatched);
  clock_.advance(seconds(3600));
  worker_.silent = true;
  const TimePoint resumed = clock_.now();
  expect_down(DownCause::kSilent, seconds(2));
  EXPECT_LE(clock_.now() - resumed, milliseconds(250));
}

TEST_F(WorkerWatchTest, AnotherIncarnationIsARestart) {
  make_watched();
  worker_.stats.incarnation = 12;
  expect_down(DownCause::kRestarted, milliseconds(501));
}

TEST_F(WorkerWatchTest, AnotherEpochIsALostSession) {
  make_watched();
  worker_.stats.epoch = 2;
  EXPECT_THAT(expect_down(DownCause::kSessionLost, milliseconds(501)).reason,
              HasSubstr("session 2 instead of 1"));
}

TEST_F(WorkerWatchTest, ARefusedHeartbeatIsALostSession) {
  for (const StatusCode code : {StatusCode::kFailedPrecondition, StatusCode::kAborted}) {
    make_watched();
    worker_.error = Status(code, "no such session");
    expect_down(DownCause::kSessionLost, milliseconds(501));
    worker_.error = {};
  }
}

TEST_F(WorkerWatchTest, AFailedWorkerIsDownWithItsReason) {
  make_watched();
  worker_.stats.state = WorkerState::kFailed;
  worker_.stats.failure = "out of memory";
  EXPECT_THAT(expect_down(DownCause::kFailed, milliseconds(501)).reason,
              HasSubstr("out of memory"));
}

TEST_F(WorkerWatchTest, AStepWithoutProgressIsStuckPastTheLimit) {
  make_watched();
  worker_.stats.progress_age_ms = 60'000;
  EXPECT_FALSE(run(seconds(2)));
  worker_.stats.progress_age_ms = 3'600'000;
  worker_.stats.step_in_progress = false;  // idle for an hour is well
  EXPECT_FALSE(run(seconds(2)));
  worker_.stats.step_in_progress = true;
  expect_down(DownCause::kStuck, milliseconds(501));
}

TEST_F(WorkerWatchTest, ADownWorkerComesBack) {
  make_watched();
  worker_.error = unavailable("killed");
  expect_down(DownCause::kUnreachable, seconds(3));
  EXPECT_FALSE(run(seconds(20)));
  worker_.error = {};
  worker_.info.incarnation = 12;
  worker_.stats.incarnation = 12;
  const auto event = run(seconds(1) + milliseconds(1));
  ASSERT_TRUE(event);
  EXPECT_EQ(std::get<WorkerAvailable>(*event).info.incarnation, 12U);
  worker_.stats.epoch = 2;
  watch_.watch(2, 12);
  EXPECT_FALSE(run(seconds(5)));
  EXPECT_EQ(worker_.last_epoch, 2U);
}

TEST_F(WorkerWatchTest, UnwatchEndsHeartbeatsAndReportsAvailableAgain) {
  make_watched();
  worker_.error = unavailable("ended on purpose");
  watch_.unwatch();
  const int before = worker_.num_heartbeats;
  EXPECT_FALSE(run(seconds(5)));
  EXPECT_EQ(worker_.num_heartbeats, before);
  worker_.error = {};
  EXPECT_TRUE(run(seconds(2)));
}

TEST_F(WorkerWatchTest, AWorkerThatCannotBeConfiguredIsNotAskedInARush) {
  int num_available = 0;
  const Deadline end = Deadline::after(seconds(60), clock_);
  while (!end.has_passed(clock_)) {
    if (!run(end.remaining(clock_))) break;
    ++num_available;
    watch_.unwatch();
  }
  EXPECT_GE(num_available, 55);
  EXPECT_LE(num_available, 64);
}

TEST_F(WorkerWatchTest, TheOutcomeOfACallIsDroppedWhenTheSessionChangedMeanwhile) {
  make_watched();
  worker_.error = failed_precondition("session 1 ended");
  worker_.during_call = [this] {
    worker_.during_call = nullptr;
    watch_.watch(2, kIncarnation);
  };
  clock_.advance(watch_.time_to_tick());
  EXPECT_FALSE(watch_.tick());
  worker_.error = {};
  worker_.stats.epoch = 2;
  EXPECT_FALSE(run(seconds(3)));
  EXPECT_EQ(watch_.snapshot().state, WatchState::kWatched);
  EXPECT_EQ(watch_.snapshot().num_downs, 0U);
}

TEST_F(WorkerWatchTest, TickDoesNothingBeforeItsTime) {
  make_watched();
  const int before = worker_.num_heartbeats;
  EXPECT_GT(watch_.time_to_tick(), Duration::zero());
  EXPECT_FALSE(watch_.tick());
  EXPECT_EQ(worker_.num_heartbeats, before);
}

TEST(WorkerMonitorConfig, RefusesWhatCannotWork) {
  EXPECT_NO_THROW(WorkerMonitorConfig{}.validate());
  EXPECT_THROW(WorkerMonitorConfig{.call_timeout = Duration::zero()}.validate(), Error);
  EXPECT_THROW(WorkerMonitorConfig{.max_failures = 0}.validate(), Error);
  EXPECT_THROW(
      (WorkerMonitorConfig{.min_backoff = seconds(2), .max_backoff = seconds(1)}.validate()),
      Error);
}

}  // namespace
}  // namespace lamina::control
