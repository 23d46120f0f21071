// The monitor in real time, against worker processes that are killed, stopped and restarted: what
// WorkerWatch's tests show on a manual clock, with gRPC and the kernel in between.
#include "control/worker_monitor.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <condition_variable>
#include <deque>

#include "control/attention_control_client.h"
#include "control/control_testing.h"
#include "control/tcp_relay.h"
#include "control/worker_process.h"

namespace lamina::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// What issue and operators are promised.
constexpr Duration kDetectionLimit = seconds(3);
// For what has no promise: generous, since test machines are loaded.
constexpr Duration kPatience = seconds(20);

// A queue of events. Internally locked.
class QueueListener final : public WorkerListener {
 public:
  struct Event {
    size_t worker_idx = 0;
    WorkerEvent event;
  };

  void worker_available(size_t worker_idx, const WorkerInfo& info) override {
    push({.worker_idx = worker_idx, .event = WorkerAvailable{.info = info}});
  }
  void worker_down(size_t worker_idx, const WorkerDown& down) override {
    push({.worker_idx = worker_idx, .event = down});
  }
  std::optional<Event> next(Duration timeout) {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, timeout, [this] { return !events_.empty(); })) return std::nullopt;
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  void push(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    arrived_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Event> events_;
};

class WorkerMonitorNetTest : public testing::Test {
 protected:
  WorkerInfo expect_available(size_t worker_idx) {
    const auto event = listener_.next(kPatience);
    if (!event || !std::holds_alternative<WorkerAvailable>(event->event)) {
      ADD_FAILURE() << "no worker became available";
      return {};
    }
    EXPECT_EQ(event->worker_idx, worker_idx);
    return std::get<WorkerAvailable>(event->event).info;
  }

  WorkerDown expect_down(size_t worker_idx) {
    const auto event = listener_.next(kDetectionLimit);
    if (!event || !std::holds_alternative<WorkerDown>(event->event)) {
      ADD_FAILURE() << "no worker went down";
      return {};
    }
    EXPECT_EQ(event->worker_idx, worker_idx);
    return std::get<WorkerDown>(event->event);
  }

  static void open(WorkerMonitor& monitor,
                   size_t worker_idx,
                   AttentionControlClient& client,
                   uint64_t incarnation,
                   uint64_t epoch) {
    const auto blob = client.configure(make_session_config(epoch), kPatience);
    ASSERT_TRUE(blob.ok()) << blob.status().to_string();
    monitor.watch(worker_idx, epoch, incarnation);
  }

  QueueListener listener_;
};

TEST_F(WorkerMonitorNetTest, AKilledWorkerIsDownAndARestartedOneIsTakenBack) {
  auto process = std::make_unique<WorkerProcess>();
  const uint16_t port = process->port();
  AttentionControlClient client({.port = port}, {});
  WorkerMonitor monitor({}, {&client}, listener_);
  const WorkerInfo first = expect_available(0);
  open(monitor, 0, client, first.incarnation, 1);

  process->kill_and_wait();
  const WorkerDown down = expect_down(0);
  EXPECT_EQ(down.cause, DownCause::kUnreachable) << down.reason;
  EXPECT_EQ(down.epoch, 1U);
  EXPECT_EQ(monitor.snapshot(0).num_downs, 1U);

  process = std::make_unique<WorkerProcess>(port);
  const WorkerInfo second = expect_available(0);
  EXPECT_NE(second.incarnation, first.incarnation);
  EXPECT_EQ(second.session_epoch, 0U);
  open(monitor, 0, client, second.incarnation, 2);
  EXPECT_FALSE(listener_.next(milliseconds(600)));
  EXPECT_EQ(monitor.snapshot(0).state, WatchState::kWatched);
}

TEST_F(WorkerMonitorNetTest, AStoppedWorkerIsDownAndItsNeighbourIsNot) {
  const WorkerProcess stopped;
  AttentionControlClient client({.port = stopped.port()}, {});
  const WorkerProcess neighbour;
  AttentionControlClient neighbour_client({.port = neighbour.port()}, {});
  const uint64_t incarnation = client.describe(kPatience).value_or_throw().incarnation;
  const uint64_t neighbour_incarnation =
      neighbour_client.describe(kPatience).value_or_throw().incarnation;
  WorkerMonitor monitor({}, {&client, &neighbour_client}, listener_);
  ASSERT_TRUE(listener_.next(kPatience));
  ASSERT_TRUE(listener_.next(kPatience));
  open(monitor, 0, client, incarnation, 1);
  open(monitor, 1, neighbour_client, neighbour_incarnation, 1);

  stopped.signal(SIGSTOP);
  const WorkerDown down = expect_down(0);
  EXPECT_EQ(down.cause, DownCause::kSilent) << down.reason;
  EXPECT_EQ(client.describe(milliseconds(100)).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(monitor.snapshot(1).state, WatchState::kWatched);

  stopped.signal(SIGCONT);
  const WorkerInfo resumed = expect_available(0);
  EXPECT_EQ(resumed.incarnation, incarnation);
  open(monitor, 0, client, resumed.incarnation, 2);
  EXPECT_FALSE(listener_.next(milliseconds(600)));
}

TEST_F(WorkerMonitorNetTest, ACutLinkIsDownAndAMendedOneIsTakenBack) {
  const WorkerProcess process;
  TcpRelay relay(process.port());
  AttentionControlClient client({.port = relay.port()}, {});
  WorkerMonitor monitor({}, {&client}, listener_);
  const WorkerInfo info = expect_available(0);
  open(monitor, 0, client, info.incarnation, 1);

  relay.cut();
  const WorkerDown down = expect_down(0);
  EXPECT_EQ(down.cause, DownCause::kSilent) << down.reason;

  relay.mend();
  EXPECT_EQ(expect_available(0).incarnation, info.incarnation);
  open(monitor, 0, client, info.incarnation, 2);
}

TEST_F(WorkerMonitorNetTest, AWorkerThatStartsLateIsFound) {
  uint16_t port = 0;
  {
    const WorkerProcess probe;  // its port is free once it is gone
    port = probe.port();
  }
  AttentionControlClient client({.port = port}, {});
  WorkerMonitor monitor({}, {&client}, listener_);
  EXPECT_FALSE(listener_.next(milliseconds(300)));
  EXPECT_EQ(monitor.snapshot(0).last_error.code(), StatusCode::kUnavailable);
  const WorkerProcess process(port);
  EXPECT_NE(expect_available(0).incarnation, 0U);
}

TEST_F(WorkerMonitorNetTest, RefusesABadConfig) {
  EXPECT_THROW(WorkerMonitor({.max_failures = 0}, {}, listener_), Error);
}

}  // namespace
}  // namespace lamina::control
