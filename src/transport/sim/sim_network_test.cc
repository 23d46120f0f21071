#include "transport/sim/sim_network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "transport/sim/sim_testing.h"
#include "transport/wait_any.h"

namespace lamina {
namespace {

using sim_testing::at;
using sim_testing::is_equal;
using sim_testing::message_bytes;
using sim_testing::side_config;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// Two hosts and a link: 10 us, 100 bytes a microsecond.
class SimTest : public testing::Test {
 protected:
  void connect(const SimLinkConfig& link) {
    pair_ = network_.connect(alice_, side_config(1, 2), bob_, side_config(2, 1), link);
  }
  static SimLinkConfig plain() {
    return {.latency = microseconds(10), .bandwidth_bytes_per_us = 100};
  }
  SimEndpoint& a() { return *pair_.a; }
  SimEndpoint& b() { return *pair_.b; }
  void put(SimEndpoint& from, SlotIdx slot, uint64_t seq, size_t size_bytes = 0) {
    const Status status = from.put(slot, message_bytes(size_bytes, seq), seq);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  // When each of the slots' message `seq` is ready at b, looking every `step`.
  std::vector<TimePoint> arrivals(SlotIdx num_slots, uint64_t seq, Duration step) {
    std::vector<TimePoint> when(num_slots);
    for (SlotIdx num_there = 0; num_there < num_slots;) {
      network_.advance_to(network_.now() + step);
      for (SlotIdx slot = 0; slot < num_slots; ++slot) {
        if (when[slot] != TimePoint() || b().poll(slot, seq) != PollResult::kReady) continue;
        when[slot] = network_.now();
        ++num_there;
      }
    }
    return when;
  }

  SimNetwork network_{7};
  SimHost& alice_ = network_.add_host("alice");
  SimHost& bob_ = network_.add_host("bob");
  SimNetwork::Pair pair_;
};

TEST_F(SimTest, AMessageTakesLatencyAndTransfer) {
  connect(plain());
  put(a(), 0, 1, 500);  // 10 us + 5 us
  network_.advance_to(at(microseconds(15)) - Duration(1));
  EXPECT_EQ(b().poll(0, 1), PollResult::kPending);
  EXPECT_EQ(b().received_seq(0), 0U);
  EXPECT_TRUE(b().payload(0).empty());
  network_.advance_to(at(microseconds(15)));
  EXPECT_EQ(b().poll(0, 2), PollResult::kPending);
  EXPECT_EQ(b().poll(0, 1), PollResult::kReady);
  EXPECT_EQ(b().received_seq(0), 1U);
  EXPECT_TRUE(is_equal(b().payload(0), message_bytes(500, 1)));
  EXPECT_EQ(b().poll(1, 1), PollResult::kPending);
}

TEST_F(SimTest, AHostThatComputesSendsAtItsOwnTime) {
  connect(plain());
  alice_.compute(microseconds(100));
  put(a(), 1, 1);
  EXPECT_EQ(alice_.now(), at(microseconds(100)));
  network_.advance_to(at(microseconds(109)));
  EXPECT_EQ(alice_.now(), at(microseconds(109)));
  EXPECT_EQ(b().poll(1, 1), PollResult::kPending);
  network_.advance_to(at(microseconds(110)));
  EXPECT_EQ(b().poll(1, 1), PollResult::kReady);
}

TEST_F(SimTest, AHostThatComputesSeesWhatCameMeanwhile) {
  connect(plain());
  put(a(), 1, 1);
  bob_.compute(microseconds(9));
  EXPECT_EQ(b().poll(1, 1), PollResult::kPending);
  bob_.compute(microseconds(1));
  EXPECT_EQ(b().poll(1, 1), PollResult::kReady);
  EXPECT_EQ(network_.now(), at(Duration(0)));
}

TEST_F(SimTest, JitterIsBounded) {
  SimLinkConfig link = plain();
  link.jitter = microseconds(50);
  connect(link);
  TimePoint earliest = TimePoint::max();
  TimePoint latest = TimePoint::min();
  for (uint64_t seq = 1; seq <= 200; ++seq) {
    const TimePoint start = network_.now();
    put(a(), 1, seq);
    const auto next = network_.next_event_time();
    ASSERT_TRUE(next.has_value());
    network_.advance_to(*next);
    ASSERT_EQ(b().poll(1, seq), PollResult::kReady);
    earliest = std::min(earliest, at(network_.now() - start));
    latest = std::max(latest, at(network_.now() - start));
  }
  EXPECT_GE(earliest, at(microseconds(10)));
  EXPECT_LE(earliest, at(microseconds(15)));
  EXPECT_LE(latest, at(microseconds(60)));
  EXPECT_GE(latest, at(microseconds(55)));
}

TEST_F(SimTest, WithoutReorderTheOrderOfCommitsIsKept) {
  SimLinkConfig link = plain();
  link.jitter = microseconds(50);
  connect(link);
  for (uint64_t seq = 1; seq <= 50; ++seq) {
    put(a(), 0, seq, 1000);
    put(a(), 1, seq);
    const auto when = arrivals(2, seq, microseconds(1));
    EXPECT_LE(when[0], when[1]);
  }
}

TEST_F(SimTest, WithReorderOtherSlotsOvertake) {
  SimLinkConfig link = plain();
  link.reorder = true;
  connect(link);
  put(a(), 0, 1, 1000);
  put(a(), 1, 1);
  EXPECT_EQ(arrivals(2, 1, microseconds(1)),
            (std::vector{at(microseconds(20)), at(microseconds(10))}));
}

TEST_F(SimTest, MessagesOfOneSlotNeverOvertake) {
  SimLinkConfig link = plain();
  link.reorder = true;
  connect(link);
  put(a(), 0, 1, 1000);
  put(a(), 0, 2);  // before the first arrived: a violation, but in order
  network_.advance_to(at(microseconds(19)));
  EXPECT_EQ(b().poll(0, 1), PollResult::kPending);
  network_.advance_to(at(microseconds(20)));
  EXPECT_EQ(b().poll(0, 2), PollResult::kReady);
  EXPECT_EQ(b().received_seq(0), 2U);
}

TEST_F(SimTest, WhatIsLostComesLater) {
  SimLinkConfig link = plain();
  link.loss_probability = 0.3;
  link.retransmit_after = microseconds(200);
  connect(link);
  int num_late = 0;
  constexpr int kNumMessages = 300;
  for (uint64_t seq = 1; seq <= kNumMessages; ++seq) {
    const TimePoint start = network_.now();
    put(a(), 1, seq);
    network_.advance_to(*network_.next_event_time());
    ASSERT_EQ(b().poll(1, seq), PollResult::kReady);
    const Duration took = network_.now() - start;
    // 0, 200, 600, 1400 us of retransmission.
    const auto rounds = (took - microseconds(10)) / microseconds(200) + 1;
    EXPECT_EQ(rounds & (rounds - 1), 0) << took.count();
    num_late += took > microseconds(10) ? 1 : 0;
  }
  EXPECT_NEAR(num_late, kNumMessages * 0.3, 30);
}

TEST_F(SimTest, RetransmissionsAreBounded) {
  SimLinkConfig link = plain();
  link.loss_probability = 1;
  link.retransmit_after = microseconds(1);
  connect(link);
  put(a(), 0, 1);
  network_.advance_to(*network_.next_event_time());
  EXPECT_EQ(network_.now(), at(microseconds(10 + 255))) << "eight times, then it gets through";
  EXPECT_EQ(b().poll(0, 1), PollResult::kReady);
}

TEST_F(SimTest, ACutLinkIsDownForBoth) {
  connect(plain());
  put(a(), 0, 1);
  network_.advance_to(at(microseconds(5)));
  put(a(), 1, 1);
  put(b(), 1, 1);
  network_.cut(a(), at(microseconds(12)));
  network_.advance_to(at(microseconds(12)));
  EXPECT_EQ(b().poll(0, 1), PollResult::kReady) << "it came before";
  EXPECT_EQ(b().poll(1, 1), PollResult::kDown);
  EXPECT_EQ(a().poll(1, 1), PollResult::kDown);
  network_.advance_to(at(milliseconds(1)));
  EXPECT_EQ(b().poll(1, 1), PollResult::kDown) << "it came too late";
  EXPECT_EQ(b().poll(0, 1), PollResult::kReady);
  EXPECT_EQ(b().put(0, {}, 1).code(), StatusCode::kUnavailable);
  EXPECT_EQ(network_.next_event_time(), std::nullopt);
}

TEST_F(SimTest, ALinkDiesByChance) {
  SimLinkConfig link = plain();
  link.death_probability = 0.05;
  int num_died = 0;
  for (uint64_t round = 0; round < 100; ++round) {
    connect(link);
    bool alive = true;
    for (uint64_t seq = 1; seq <= 10 && alive; ++seq) {
      put(a(), 0, seq);
      network_.advance_to(network_.now() + microseconds(10));
      alive = b().poll(0, seq) == PollResult::kReady;
      if (!alive) {
        EXPECT_EQ(b().poll(0, seq), PollResult::kDown);
        EXPECT_EQ(a().poll(0, 1), PollResult::kDown);
      }
    }
    num_died += alive ? 0 : 1;
  }
  EXPECT_NEAR(num_died, 40, 15);  // 1 - 0.95^10
}

TEST_F(SimTest, PeersOfAKilledHostNoticeAfterAWhile) {
  SimLinkConfig link = plain();
  link.detection_delay = microseconds(300);
  connect(link);
  network_.kill(bob_, at(microseconds(100)));
  network_.advance_to(at(microseconds(99)));
  put(b(), 0, 1);
  bob_.compute(microseconds(1));
  EXPECT_TRUE(bob_.is_dead());
  EXPECT_EQ(b().put(1, {}, 1).code(), StatusCode::kUnavailable);
  EXPECT_EQ(b().poll(0, 1), PollResult::kDown);

  network_.advance_to(at(microseconds(399)));
  EXPECT_EQ(a().poll(0, 1), PollResult::kReady) << "sent before the death";
  EXPECT_EQ(a().poll(0, 2), PollResult::kPending);
  EXPECT_TRUE(a().put(1, {}, 1).ok()) << "nobody knows yet";
  EXPECT_EQ(network_.next_event_time(alice_), at(microseconds(400)));
  network_.advance_to(at(microseconds(400)));
  EXPECT_EQ(a().poll(0, 2), PollResult::kDown);
  EXPECT_EQ(a().poll(0, 1), PollResult::kReady);
  EXPECT_EQ(a().put(1, {}, 2).code(), StatusCode::kUnavailable);
}

TEST_F(SimTest, AKillTakesBackWhatWasSentAtALaterLocalTime) {
  connect(plain());
  bob_.compute(microseconds(500));
  put(b(), 0, 1);
  network_.kill(bob_, at(microseconds(200)));
  network_.advance_to(at(microseconds(600)));
  EXPECT_EQ(a().poll(0, 1), PollResult::kPending);
}

TEST_F(SimTest, WhatWasSentBeforeLeavingIsStillRead) {
  connect(plain());
  put(a(), 0, 3, 1000);
  put(a(), 1, 4, 64);
  pair_.a.reset();
  network_.advance_to(at(microseconds(19)));
  EXPECT_EQ(b().poll(0, 3), PollResult::kPending);
  network_.advance_to(at(microseconds(20)));
  EXPECT_EQ(b().poll(0, 4), PollResult::kDown);
  EXPECT_EQ(b().poll(0, 3), PollResult::kReady);
  EXPECT_EQ(b().poll(1, 4), PollResult::kReady);
  EXPECT_TRUE(is_equal(b().payload(1), message_bytes(64, 4)));
  EXPECT_EQ(b().put(0, {}, 1).code(), StatusCode::kUnavailable);
}

TEST_F(SimTest, AFencedPeerReachesNothing) {
  connect(plain());
  put(a(), 0, 1, 100);
  put(b(), 0, 1, 100);
  network_.advance_to(at(microseconds(20)));
  ASSERT_EQ(b().poll(0, 1), PollResult::kReady);
  const std::span<std::byte> staged_before = b().stage(0, 64);
  b().fence_peer();
  b().fence_peer();
  EXPECT_EQ(b().poll(0, 1), PollResult::kDown);
  EXPECT_TRUE(b().payload(0).empty());
  std::fill(staged_before.begin(), staged_before.end(), std::byte{1});
  EXPECT_EQ(b().commit(0, 64, 2).code(), StatusCode::kUnavailable);
  EXPECT_EQ(a().poll(0, 2), PollResult::kPending);
  EXPECT_EQ(network_.next_event_time(alice_), at(microseconds(30)));
  EXPECT_EQ(network_.next_event_time(bob_), std::nullopt);
  network_.advance_to(at(microseconds(30)));
  EXPECT_EQ(a().poll(0, 2), PollResult::kDown);
  EXPECT_EQ(a().poll(0, 1), PollResult::kReady);
  pair_.a.reset();
  EXPECT_EQ(b().poll(0, 1), PollResult::kDown);
}

TEST_F(SimTest, AbortIsOursAlone) {
  connect(plain());
  put(a(), 0, 1);
  b().abort();
  network_.advance_to(at(microseconds(50)));
  EXPECT_EQ(b().poll(0, 1), PollResult::kDown);
  EXPECT_EQ(b().put(0, {}, 1).code(), StatusCode::kUnavailable);
  EXPECT_EQ(a().poll(0, 1), PollResult::kPending);
  EXPECT_TRUE(a().put(0, {}, 2).ok());
  EXPECT_EQ(network_.next_event_time(), std::nullopt);
  EXPECT_EQ(network_.num_violations(), 0U);
}

TEST_F(SimTest, ANewEpochConnectsBesideTheOldOne) {
  connect(plain());
  put(a(), 0, 100);
  b().fence_peer();
  const auto next =
      network_.connect(alice_, side_config(1, 2, 2), bob_, side_config(2, 1, 2), plain());
  EXPECT_EQ(next.b->peer(), (PeerId{.id = 1, .epoch = 2}));
  put(*next.a, 0, 1);
  network_.advance_to(at(microseconds(10)));
  EXPECT_EQ(next.b->poll(0, 1), PollResult::kReady);
  EXPECT_EQ(next.b->poll(0, 100), PollResult::kPending);
}

TEST_F(SimTest, MisuseIsABug) {
  connect(plain());
  put(a(), 1, 5);
  EXPECT_DEATH(a().stage(3, 0), "slot < sent_.size");
  EXPECT_DEATH(a().stage(1, 65), "capacity");
  EXPECT_DEATH(static_cast<void>(a().put(1, {}, 5)), "seq > sent.seq");
  EXPECT_DEATH(a().poll(3, 1), "received_.size");
  EXPECT_DEATH(static_cast<void>(a().wait(0, 1, Deadline::expired(), {})), "nothing may block");
  const AwaitedMessage awaited{.endpoint = &a(), .slot = 0, .seq = 1};
  EXPECT_DEATH(static_cast<void>(wait_any({&awaited, 1}, Deadline::expired(), {})),
               "nothing may wait on it");
  EXPECT_DEATH(network_.advance_to(TimePoint::min()), "now");
}

TEST_F(SimTest, AMessageThatNobodySawMustNotBeOverwritten) {
  connect(plain());
  put(a(), 0, 1);
  network_.advance_to(at(microseconds(30)));
  put(a(), 0, 2);
  EXPECT_EQ(network_.num_violations(), 0U);
  network_.advance_to(at(microseconds(60)));
  EXPECT_EQ(b().poll(0, 2), PollResult::kReady);
  EXPECT_EQ(network_.num_violations(), 1U);
  EXPECT_EQ(network_.first_violation(),
            "message 2 of slot 0 from alice overwrote 1, which bob had not seen");
  put(a(), 0, 3);
  network_.advance_to(at(microseconds(90)));
  EXPECT_EQ(b().poll(0, 3), PollResult::kReady);
  EXPECT_EQ(network_.num_violations(), 1U) << "this one was seen in time";
}

TEST_F(SimTest, AMessageUnderWayMustNotBeOverwritten) {
  connect(plain());
  put(a(), 0, 1);
  network_.advance_to(at(microseconds(5)));
  put(a(), 0, 2);
  EXPECT_EQ(network_.num_violations(), 1U);
  EXPECT_EQ(network_.first_violation(), "alice sent bob message 2 of slot 0 while 1 was under way");
}

TEST_F(SimTest, WhatIsUnderWayIsBounded) {
  connect(plain());
  for (uint64_t seq = 1; seq <= 1000; ++seq) put(a(), 0, seq, 10);
  EXPECT_EQ(network_.num_violations(), 999U);
  network_.advance_to(at(milliseconds(1)));
  EXPECT_EQ(b().poll(0, 1000), PollResult::kReady);
  EXPECT_EQ(network_.num_violations(), 999U + 3U);
}

TEST_F(SimTest, TheNextEventIsTheEarliestThatAHostHasNotNoticed) {
  connect(plain());
  EXPECT_EQ(network_.next_event_time(), std::nullopt);
  put(a(), 0, 1, 1000);
  put(b(), 0, 1);
  EXPECT_EQ(network_.next_event_time(), at(microseconds(10)));
  EXPECT_EQ(network_.next_event_time(alice_), at(microseconds(10)));
  EXPECT_EQ(network_.next_event_time(bob_), at(microseconds(20)));
  network_.advance_to(at(microseconds(15)));
  EXPECT_EQ(network_.next_event_time(alice_), at(microseconds(15))) << "it has not looked yet";
  a().poll(1, 1);
  EXPECT_EQ(network_.next_event_time(alice_), std::nullopt) << "any poll is a look";
  EXPECT_EQ(network_.next_event_time(), at(microseconds(20)));
  network_.kill(alice_, at(microseconds(18)));
  EXPECT_EQ(network_.next_event_time(), at(microseconds(18)));
}

// The host looked at a later local time, but before the message was sent.
TEST_F(SimTest, AnEventInAHostsPastIsNotMissed) {
  connect(plain());
  bob_.compute(microseconds(100));
  EXPECT_EQ(b().poll(0, 1), PollResult::kPending);
  network_.advance_to(at(microseconds(50)));
  put(a(), 0, 1);  // arrives at 60
  EXPECT_EQ(network_.next_event_time(bob_), at(microseconds(100)));
  network_.advance_to(at(microseconds(80)));
  EXPECT_EQ(network_.next_event_time(bob_), at(microseconds(100)));
  EXPECT_EQ(b().poll(0, 1), PollResult::kReady);
  EXPECT_EQ(network_.next_event_time(bob_), std::nullopt);
}

TEST_F(SimTest, ADeadHostHasNoEvents) {
  connect(plain());
  network_.kill(bob_, at(microseconds(5)));
  put(a(), 0, 1);
  EXPECT_EQ(network_.next_event_time(bob_), std::nullopt);
  EXPECT_EQ(network_.next_event_time(), at(microseconds(5)));
  network_.advance_to(at(microseconds(5)));
  EXPECT_EQ(network_.next_event_time(), at(microseconds(5)) + SimLinkConfig().detection_delay);
}

}  // namespace
}  // namespace lamina
