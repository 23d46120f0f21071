// What every backend must do, one body for all.
#include <algorithm>
#include <atomic>
#include <thread>

#include "base/rng.h"
#include "transport/endpoint_testing.h"

namespace lamina {
namespace {

using transport_testing::connect_pair;
using transport_testing::fill;
using transport_testing::is_filled;
using transport_testing::Pair;
using transport_testing::patience;
using transport_testing::put_filled;
using transport_testing::Slots;

class Conformance : public testing::TestWithParam<TransportKind> {};

INSTANTIATE_TEST_SUITE_P(Backends,
                         Conformance,
                         testing::Values(TransportKind::kLoopback,
                                         TransportKind::kShm,
                                         TransportKind::kTcp,
                                         TransportKind::kCudaP2p),
                         [](const auto& tested) {
                           return std::string(transport_name(tested.param));
                         });

// Waits in one of the ways there are; false when it did not come to kReady.
bool await(Endpoint& endpoint, SlotIdx slot, uint64_t seq, Rng& rng) {
  const Duration spin = std::chrono::microseconds(rng.next_below(2) * 20);
  if (rng.next_below(2) == 0) return endpoint.wait(slot, seq, patience(), {spin}).ok();
  const Deadline deadline = patience();
  while (!deadline.has_passed()) {
    const PollResult result = endpoint.poll(slot, seq);
    if (result != PollResult::kPending) return result == PollResult::kReady;
    std::this_thread::yield();
  }
  return false;
}

size_t random_size(Rng& rng, size_t capacity) {
  switch (rng.next_below(4)) {
    case 0:
      return 0;
    case 1:
      return capacity;
    default:
      return rng.next_below(capacity + 1);
  }
}

const std::vector<size_t> kMixedSlots = {0, 1, 64, 4099, 70'000};

// One side of a conversation: message `i` goes to slot i % n and is answered in the same slot. Size
// and content follow from the seed, so that the other side can check them.
void converse(Endpoint& endpoint, bool speaks_first, uint64_t num_messages, uint64_t seed) {
  Rng choices(seed + (speaks_first ? 1 : 2));
  Rng requests(seed);
  Rng replies(seed + 3);
  for (uint64_t seq = 1; seq <= num_messages; ++seq) {
    const auto slot = static_cast<SlotIdx>(seq % kMixedSlots.size());
    const size_t request_bytes = random_size(requests, kMixedSlots[slot]);
    const size_t reply_bytes = random_size(replies, kMixedSlots[slot]);
    if (speaks_first) put_filled(endpoint, slot, request_bytes, seq);
    ASSERT_TRUE(await(endpoint, slot, seq, choices)) << "seed " << seed << ", message " << seq;
    EXPECT_EQ(endpoint.received_seq(slot), seq);
    EXPECT_EQ(endpoint.payload(slot).size(), speaks_first ? reply_bytes : request_bytes);
    ASSERT_TRUE(is_filled(endpoint.payload(slot), seq)) << "seed " << seed << ", message " << seq;
    if (!speaks_first) put_filled(endpoint, slot, reply_bytes, seq);
  }
}

TEST_P(Conformance, MessagesArriveInOrderAndWholeBothWays) {
  constexpr uint64_t kNumMessages = 3000;
  constexpr uint64_t kSeed = 20;
  const Pair pair =
      connect_pair(GetParam(), {.to_listener = kMixedSlots, .to_connector = kMixedSlots});
  std::thread answering([&] { converse(*pair.listener, false, kNumMessages, kSeed); });
  converse(*pair.connector, true, kNumMessages, kSeed);
  answering.join();
}

// A receiver that polls without pause sees a number only with all the bytes that belong to it.
TEST_P(Conformance, ASequenceNumberShowsOnlyAfterItsPayload) {
  constexpr uint64_t kNumMessages = 200;
  constexpr size_t kBytes = 100'000;
  const Pair pair = connect_pair(GetParam(), {.to_listener = {kBytes}, .to_connector = {8}});
  std::thread sender([&] {
    for (uint64_t seq = 1; seq <= kNumMessages; ++seq) {
      const auto staged = pair.connector->stage(0, kBytes);
      std::fill(staged.begin(), staged.end(), static_cast<std::byte>(seq));
      ASSERT_TRUE(pair.connector->commit(0, kBytes, seq).ok());
      ASSERT_TRUE(pair.connector->wait(0, seq, patience(), {}).ok());
    }
  });
  for (uint64_t seq = 1; seq <= kNumMessages; ++seq) {
    PollResult result = PollResult::kPending;
    while (result == PollResult::kPending) {
      std::this_thread::yield();
      result = pair.listener->poll(0, seq);
    }
    ASSERT_EQ(result, PollResult::kReady);
    const auto payload = pair.listener->payload(0);
    ASSERT_EQ(payload.size(), kBytes);
    ASSERT_EQ(std::count(payload.begin(), payload.end(), static_cast<std::byte>(seq)), kBytes);
    ASSERT_TRUE(pair.listener->put(0, {}, seq).ok());
  }
  sender.join();
}

TEST_P(Conformance, PollTellsPendingFromReady) {
  const Pair pair = connect_pair(GetParam(), {.to_listener = {16, 16}, .to_connector = {16}});
  EXPECT_EQ(pair.listener->poll(0, 1), PollResult::kPending);
  EXPECT_EQ(pair.listener->received_seq(0), 0U);
  EXPECT_TRUE(pair.listener->payload(0).empty());
  put_filled(*pair.connector, 0, 10, 5);
  ASSERT_TRUE(pair.listener->wait(0, 5, patience(), {}).ok());
  EXPECT_EQ(pair.listener->poll(0, 4), PollResult::kReady);
  EXPECT_EQ(pair.listener->poll(0, 5), PollResult::kReady);
  EXPECT_EQ(pair.listener->poll(0, 6), PollResult::kPending);
  EXPECT_EQ(pair.listener->poll(1, 1), PollResult::kPending);
  EXPECT_EQ(pair.listener->received_seq(0), 5U);
  EXPECT_EQ(pair.listener->payload(0).size(), 10U);
}

TEST_P(Conformance, AllSlotsMayBeOutstandingAtOnce) {
  const Pair pair = connect_pair(GetParam(), {.to_listener = kMixedSlots, .to_connector = {}});
  for (SlotIdx slot = 0; slot < kMixedSlots.size(); ++slot) {
    put_filled(*pair.connector, slot, kMixedSlots[slot], 7);
  }
  for (SlotIdx slot = static_cast<SlotIdx>(kMixedSlots.size()); slot-- > 0;) {
    ASSERT_TRUE(pair.listener->wait(slot, 7, patience(), {}).ok());
    EXPECT_EQ(pair.listener->payload(slot).size(), kMixedSlots[slot]);
    EXPECT_TRUE(is_filled(pair.listener->payload(slot), 7));
  }
}

TEST_P(Conformance, AWaitEndsByItsDeadline) {
  const Pair pair = connect_pair(GetParam(), {.to_listener = {16}, .to_connector = {16}});
  for (const Duration wait : {Duration::zero(), Duration(std::chrono::milliseconds(3))}) {
    EXPECT_EQ(pair.listener->wait(0, 1, Deadline::after(wait), {}).code(),
              StatusCode::kDeadlineExceeded);
  }
  EXPECT_EQ(pair.listener->wait(0, 1, Deadline::expired(), {}).code(),
            StatusCode::kDeadlineExceeded);
  put_filled(*pair.connector, 0, 16, 1);
  ASSERT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
  EXPECT_TRUE(pair.listener->wait(0, 1, Deadline::expired(), {}).ok());
}

TEST_P(Conformance, AbortFromAnotherThreadEndsAWait) {
  for (int round = 0; round < 20; ++round) {
    const Pair pair = connect_pair(GetParam(), {.to_listener = {16}, .to_connector = {16}});
    std::thread aborting([&] { pair.listener->abort(); });
    EXPECT_EQ(pair.listener->wait(0, 1, patience(), {.spin = Duration::zero()}).code(),
              StatusCode::kUnavailable);
    aborting.join();
    EXPECT_EQ(pair.listener->poll(0, 1), PollResult::kDown);
    EXPECT_EQ(pair.listener->wait(0, 1, Deadline::expired(), {}).code(), StatusCode::kUnavailable);
    EXPECT_EQ(pair.listener->put(0, {}, 1).code(), StatusCode::kUnavailable);
  }
}

TEST_P(Conformance, WhatWasSentBeforeLeavingIsStillRead) {
  Pair pair = connect_pair(GetParam(), {.to_listener = {64, 64}, .to_connector = {64}});
  put_filled(*pair.connector, 0, 64, 3);
  put_filled(*pair.connector, 1, 0, 4);
  pair.connector.reset();
  EXPECT_EQ(pair.listener->wait(0, 4, patience(), {}).code(), StatusCode::kUnavailable);
  ASSERT_TRUE(pair.listener->wait(0, 3, patience(), {}).ok());
  ASSERT_TRUE(pair.listener->wait(1, 4, patience(), {}).ok());
  EXPECT_TRUE(is_filled(pair.listener->payload(0), 3));
  EXPECT_EQ(pair.listener->put(0, {}, 1).code(), StatusCode::kUnavailable);
}

TEST_P(Conformance, AFencedPeerReachesNothing) {
  const Pair pair = connect_pair(GetParam(), {.to_listener = {64}, .to_connector = {64}});
  put_filled(*pair.connector, 0, 64, 1);
  ASSERT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
  const std::span<std::byte> staged_before = pair.listener->stage(0, 64);
  const std::span<std::byte> staged_by_peer = pair.connector->stage(0, 64);
  pair.listener->fence_peer();
  pair.listener->fence_peer();

  EXPECT_EQ(pair.listener->poll(0, 1), PollResult::kDown);
  EXPECT_TRUE(pair.listener->payload(0).empty());
  // Memory that was handed out may still be touched by both, and leads nowhere.
  std::fill(staged_before.begin(), staged_before.end(), std::byte{1});
  std::fill(staged_by_peer.begin(), staged_by_peer.end(), std::byte{2});
  fill(pair.listener->stage(0, 64), 9);
  EXPECT_EQ(pair.listener->commit(0, 64, 2).code(), StatusCode::kUnavailable);
  EXPECT_EQ(pair.connector->wait(0, 1, patience(), {}).code(), StatusCode::kUnavailable);
  pair.listener->abort();
}

TEST_P(Conformance, BigMessagesCrossWithoutDeadlock) {
  constexpr size_t kBytes = 12 << 20;  // past any socket buffer
  const Pair pair = connect_pair(GetParam(), {.to_listener = {kBytes}, .to_connector = {kBytes}});
  std::atomic<int> num_done{0};
  const auto exchange = [&](Endpoint& endpoint) {
    put_filled(endpoint, 0, kBytes, 1);
    EXPECT_TRUE(endpoint.wait(0, 1, patience(), {}).ok());
    EXPECT_EQ(endpoint.payload(0).size(), kBytes);
    EXPECT_TRUE(is_filled(endpoint.payload(0), 1));
    ++num_done;
    // What the socket did not take leaves while this side polls.
    while (num_done < 2 && endpoint.poll(0, 2) == PollResult::kPending) std::this_thread::yield();
  };
  std::thread other([&] { exchange(*pair.listener); });
  exchange(*pair.connector);
  other.join();
}

TEST_P(Conformance, ASlotIsReusedForMessagesOfAnySize) {
  const Pair pair = connect_pair(GetParam(), {.to_listener = {1000}, .to_connector = {}});
  uint64_t seq = 0;
  for (const size_t size : std::initializer_list<size_t>{1000, 999, 1, 0, 1000, 7}) {
    seq += 10;
    put_filled(*pair.connector, 0, size, seq);
    ASSERT_TRUE(pair.listener->wait(0, seq, patience(), {}).ok());
    ASSERT_EQ(pair.listener->payload(0).size(), size);
    EXPECT_TRUE(is_filled(pair.listener->payload(0), seq));
  }
}

TEST_P(Conformance, ANewEpochConnectsBesideTheOldOne) {
  const Slots slots{.to_listener = {64}, .to_connector = {64}};
  const Pair old_pair = connect_pair(GetParam(), slots, 1);
  put_filled(*old_pair.connector, 0, 64, 100);
  old_pair.listener->fence_peer();
  const Pair pair = connect_pair(GetParam(), slots, 2);
  EXPECT_EQ(pair.listener->peer(), (PeerId{.id = 2, .epoch = 2}));
  EXPECT_EQ(pair.listener->poll(0, 1), PollResult::kPending);
  put_filled(*pair.connector, 0, 32, 1);
  ASSERT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
  EXPECT_TRUE(is_filled(pair.listener->payload(0), 1));
}

TEST_P(Conformance, MisuseIsABug) {
  const Pair pair = connect_pair(GetParam(), {.to_listener = {16}, .to_connector = {16}});
  put_filled(*pair.connector, 0, 16, 5);
  EXPECT_DEATH(pair.connector->stage(1, 0), "slot < sent_.size");
  EXPECT_DEATH(pair.connector->stage(0, 17), "capacity");
  EXPECT_DEATH(static_cast<void>(pair.connector->put(0, {}, 5)), "seq > sent.seq");
  EXPECT_DEATH(pair.connector->poll(1, 1), "received_.size");
}

}  // namespace
}  // namespace lamina
