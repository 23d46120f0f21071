// Waiting for several endpoints at once: over each backend, and over several in one call.
#include "transport/wait_any.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <thread>

#include "base/rng.h"
#include "transport/endpoint_testing.h"
#include "transport/host_endpoint.h"

namespace lamina {
namespace {

using transport_testing::ChildPeer;
using transport_testing::connect_pair;
using transport_testing::is_filled;
using transport_testing::Pair;
using transport_testing::patience;
using transport_testing::put_filled;
using transport_testing::Slots;

constexpr auto kLoopback = TransportKind::kLoopback;
constexpr auto kShm = TransportKind::kShm;
constexpr auto kTcp = TransportKind::kTcp;

// What a sleep lasts if nothing ends it: a wake that was lost costs that much.
constexpr Duration kFullNap = std::chrono::milliseconds(50);
constexpr WaitPolicy kNoSpin{.spin = Duration::zero()};
constexpr size_t kBytes = 200;

struct Backends {
  std::string name;
  std::vector<TransportKind> kinds;
};

void PrintTo(const Backends& backends, std::ostream* stream) {
  *stream << backends.name;
}

class WaitAny : public testing::TestWithParam<Backends> {
 protected:
  static constexpr size_t kNumEndpoints = 6;
  static constexpr SlotIdx kNumSlots = 2;

  WaitAny() {
    const std::vector<size_t> slots(kNumSlots, kBytes);
    for (size_t i = 0; i < kNumEndpoints; ++i) {
      const auto& kinds = GetParam().kinds;
      pairs_.push_back(
          connect_pair(kinds[i % kinds.size()], {.to_listener = slots, .to_connector = slots}));
    }
  }

  [[nodiscard]] Endpoint& here(size_t i) const { return *pairs_[i].listener; }
  [[nodiscard]] Endpoint& there(size_t i) const { return *pairs_[i].connector; }
  // Message `seq` of every slot of every endpoint.
  [[nodiscard]] std::vector<AwaitedMessage> all(uint64_t seq) const {
    std::vector<AwaitedMessage> awaited;
    for (const Pair& pair : pairs_) {
      for (SlotIdx slot = 0; slot < kNumSlots; ++slot) {
        awaited.push_back({.endpoint = pair.listener.get(), .slot = slot, .seq = seq});
      }
    }
    return awaited;
  }

  std::vector<Pair> pairs_;
};

INSTANTIATE_TEST_SUITE_P(Backends,
                         WaitAny,
                         testing::Values(Backends{"loopback", {kLoopback}},
                                         Backends{"shm", {kShm}},
                                         Backends{"tcp", {kTcp}},
                                         Backends{"regions", {kLoopback, kShm}},
                                         Backends{"mixed", {kTcp, kShm, kLoopback}}),
                         [](const auto& tested) { return tested.param.name; });

void shuffle(std::vector<AwaitedMessage>& awaited, Rng& rng) {
  for (size_t i = awaited.size(); i > 1; --i) std::swap(awaited[i - 1], awaited[rng.next_below(i)]);
}

bool is_there(const AwaitedMessage& message) {
  return message.endpoint->poll(message.slot, message.seq) == PollResult::kReady;
}

TEST_P(WaitAny, AnyOfThemEndsIt) {
  std::vector<AwaitedMessage> awaited = all(1);
  while (!awaited.empty()) {
    const size_t chosen = awaited.size() / 2;
    const SlotIdx slot = awaited[chosen].slot;
    size_t i = 0;
    while (&here(i) != awaited[chosen].endpoint) ++i;
    std::thread sender([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      put_filled(there(i), slot, kBytes, 1);
    });
    EXPECT_TRUE(wait_any(awaited, patience(), {}).ok());
    sender.join();
    for (size_t k = 0; k < awaited.size(); ++k) EXPECT_EQ(is_there(awaited[k]), k == chosen) << k;
    EXPECT_TRUE(wait_any(awaited, Deadline::expired(), {}).ok()) << "it stays there";
    awaited.erase(awaited.begin() + static_cast<ptrdiff_t>(chosen));
  }
}

TEST_P(WaitAny, EndsByItsDeadline) {
  for (const Duration wait : {Duration::zero(), Duration(std::chrono::milliseconds(3))}) {
    EXPECT_EQ(wait_any(all(1), Deadline::after(wait), {}).code(), StatusCode::kDeadlineExceeded);
    EXPECT_EQ(wait_any({}, Deadline::after(wait), {}).code(), StatusCode::kDeadlineExceeded);
  }
  EXPECT_EQ(wait_any(all(1), Deadline::expired(), {}).code(), StatusCode::kDeadlineExceeded);
}

// Answers what comes in slot 0, after a random while, until `num_messages` were answered.
void answer(Endpoint& endpoint, uint64_t num_messages, uint64_t seed) {
  Rng rng(seed);
  for (uint64_t seq = 1; seq <= num_messages; ++seq) {
    ASSERT_TRUE(endpoint.wait(0, seq, patience(), kNoSpin).ok());
    if (rng.next_below(4) == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(rng.next_below(200)));
    }
    put_filled(endpoint, static_cast<SlotIdx>(seq % 2), rng.next_below(kBytes + 1), seq);
  }
}

TEST_P(WaitAny, ServesManyPeersThatHammer) {
  constexpr uint64_t kNumMessages = 400;
  constexpr uint64_t kSeed = 31;
  std::vector<std::thread> peers;
  std::vector<AwaitedMessage> awaited;
  for (size_t i = 0; i < kNumEndpoints; ++i) {
    peers.emplace_back([&, i] { answer(there(i), kNumMessages, kSeed + i); });
    put_filled(here(i), 0, 8, 1);
    awaited.push_back({.endpoint = &here(i), .slot = 1, .seq = 1});
  }
  Rng rng(kSeed);
  while (!awaited.empty()) {
    shuffle(awaited, rng);
    const WaitPolicy policy{.spin = std::chrono::microseconds(rng.next_below(2) * 20)};
    const Status status = wait_any(awaited, patience(), policy);
    ASSERT_TRUE(status.ok()) << status.message() << ", seed " << kSeed;
    for (AwaitedMessage& message : awaited) {
      if (!is_there(message)) continue;
      EXPECT_TRUE(is_filled(message.endpoint->payload(message.slot), message.seq));
      if (message.seq < kNumMessages) put_filled(*message.endpoint, 0, 8, message.seq + 1);
      ++message.seq;
      message.slot = static_cast<SlotIdx>(message.seq % 2);
    }
    std::erase_if(awaited, [](const auto& message) { return message.seq > kNumMessages; });
  }
  for (std::thread& peer : peers) peer.join();
}

// Each wake that is lost costs a full nap. A loaded machine may cost one too, but seldom.
TEST_P(WaitAny, LosesNoWake) {
  constexpr uint64_t kNumRounds = 4000;
  constexpr uint64_t kMaxStalls = kNumRounds / 100;
  std::atomic<uint64_t> turn{0};
  std::thread sender([&] {
    Rng rng(5);
    for (uint64_t round = 1; round <= kNumRounds; ++round) {
      while (turn.load() < round) std::this_thread::yield();
      // Any moment about the waiter's falling asleep.
      const Deadline pause = Deadline::after(Duration(rng.next_below(10'000)));
      while (!pause.has_passed()) continue;
      const uint64_t target = rng.next_below(kNumEndpoints * kNumSlots);
      put_filled(there(target / kNumSlots), static_cast<SlotIdx>(target % kNumSlots), 8, round);
    }
  });
  uint64_t num_stalls = 0;
  for (uint64_t round = 1; round <= kNumRounds; ++round) {
    const std::vector<AwaitedMessage> awaited = all(round);
    const TimePoint start = steady_clock().now();
    turn = round;
    ASSERT_TRUE(wait_any(awaited, patience(), kNoSpin).ok());
    if (steady_clock().now() - start >= kFullNap) ++num_stalls;
    EXPECT_EQ(std::count_if(awaited.begin(), awaited.end(), is_there), 1);
  }
  sender.join();
  EXPECT_LE(num_stalls, kMaxStalls);
}

TEST_P(WaitAny, AFlagEndsItAndStaysUntilCleared) {
  WakeFlag wake;
  const auto awaited = all(1);
  wake.raise();
  wake.raise();
  EXPECT_TRUE(wait_any(awaited, Deadline::expired(), {}, &wake).ok());
  EXPECT_TRUE(wait_any({}, Deadline::expired(), {}, &wake).ok());
  wake.clear();
  EXPECT_EQ(wait_any(awaited, Deadline::after(std::chrono::milliseconds(1)), {}, &wake).code(),
            StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(wake.is_raised());
}

TEST_P(WaitAny, NoRaiseIsLost) {
  constexpr uint64_t kNumRounds = 4000;
  WakeFlag wake;
  std::atomic<uint64_t> news{0};
  std::atomic<uint64_t> seen{0};
  std::thread raiser([&] {
    for (uint64_t round = 1; round <= kNumRounds; ++round) {
      news = round;
      wake.raise();
      while (seen.load() < round) std::this_thread::yield();
    }
  });
  uint64_t num_stalls = 0;
  const std::vector<AwaitedMessage> all_awaited = all(1);
  while (seen.load() < kNumRounds) {
    const TimePoint start = steady_clock().now();
    // Now and then nothing but the flag.
    const size_t num_awaited = seen % 8 == 0 ? 0 : all_awaited.size();
    ASSERT_TRUE(
        wait_any(std::span(all_awaited).first(num_awaited), patience(), kNoSpin, &wake).ok());
    if (steady_clock().now() - start >= kFullNap) ++num_stalls;
    wake.clear();
    seen = news.load();
  }
  raiser.join();
  EXPECT_LE(num_stalls, kNumRounds / 100);
}

TEST_P(WaitAny, AbortOfAnyEndsIt) {
  const auto awaited = all(1);
  for (size_t i = 0; i < kNumEndpoints; ++i) {
    std::thread aborting([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      here(i).abort();
    });
    EXPECT_TRUE(wait_any(std::span(awaited).subspan(i * kNumSlots), patience(), kNoSpin).ok());
    EXPECT_EQ(here(i).poll(0, 1), PollResult::kDown);
    aborting.join();
  }
}

TEST_P(WaitAny, APeerThatLeavesEndsIt) {
  const auto awaited = all(1);
  std::thread leaving([&] { pairs_[kNumEndpoints - 1].connector.reset(); });
  EXPECT_TRUE(wait_any(awaited, patience(), kNoSpin).ok());
  EXPECT_EQ(here(kNumEndpoints - 1).poll(0, 1), PollResult::kDown);
  leaving.join();
}

bool stay_silent(Endpoint& endpoint) {
  return endpoint.wait(0, 1000, patience(), {}).ok();
}

class WaitAnyPeerDeath : public testing::TestWithParam<TransportKind> {};

INSTANTIATE_TEST_SUITE_P(Backends,
                         WaitAnyPeerDeath,
                         testing::Values(kShm, kTcp),
                         [](const auto& tested) {
                           return std::string(transport_name(tested.param));
                         });

TEST_P(WaitAnyPeerDeath, AKilledPeerEndsIt) {
  for (const TransportKind beside : {kLoopback, kTcp}) {
    ChildPeer child(GetParam(), {.to_listener = {8}, .to_connector = {8}}, stay_silent);
    const Pair alive = connect_pair(beside, {.to_listener = {8}, .to_connector = {8}});
    const std::array<AwaitedMessage, 2> awaited = {{
        {.endpoint = alive.listener.get(), .slot = 0, .seq = 1},
        {.endpoint = &child.endpoint(), .slot = 0, .seq = 1},
    }};
    child.signal(SIGKILL);
    EXPECT_TRUE(wait_any(awaited, patience(), {}).ok());
    EXPECT_EQ(child.endpoint().poll(0, 1), PollResult::kDown);
    EXPECT_EQ(alive.listener->poll(0, 1), PollResult::kPending);
  }
}

// A loop that looks in more often than a nap lasts notices it too.
TEST_P(WaitAnyPeerDeath, ShortDeadlinesNoticeAKilledPeer) {
  ChildPeer child(GetParam(), {.to_listener = {8}, .to_connector = {8}}, stay_silent);
  const AwaitedMessage awaited{.endpoint = &child.endpoint(), .slot = 0, .seq = 1};
  child.signal(SIGKILL);
  const Deadline end = patience();
  while (!wait_any({&awaited, 1}, Deadline::after(std::chrono::milliseconds(2)), {}).ok()) {
    ASSERT_FALSE(end.has_passed());
  }
  EXPECT_EQ(child.endpoint().poll(0, 1), PollResult::kDown);
}

TEST(WaitAnyLimits, MoreSlotsThanTheKernelTakesAreStillServed) {
  constexpr SlotIdx kMany = 300;
  for (const TransportKind kind : {kLoopback, kTcp}) {
    const Pair pair =
        connect_pair(kind, {.to_listener = std::vector<size_t>(kMany, 8), .to_connector = {}});
    std::vector<AwaitedMessage> awaited;
    for (SlotIdx slot = 0; slot < kMany; ++slot) {
      awaited.push_back({.endpoint = pair.listener.get(), .slot = slot, .seq = 1});
    }
    std::thread sender([&] { put_filled(*pair.connector, kMany - 1, 8, 1); });
    EXPECT_TRUE(wait_any(awaited, patience(), kNoSpin).ok());
    EXPECT_TRUE(is_there(awaited.back()));
    sender.join();
  }
}

TEST(WaitAnyLimits, MoreSocketsThanOneSleepTakesAreStillServed) {
  constexpr size_t kMany = 70;
  std::vector<Pair> pairs;
  std::vector<AwaitedMessage> awaited;
  for (size_t i = 0; i < kMany; ++i) {
    pairs.push_back(connect_pair(kTcp, {.to_listener = {8}, .to_connector = {}}));
    awaited.push_back({.endpoint = pairs.back().listener.get(), .slot = 0, .seq = 1});
  }
  std::thread sender([&] { put_filled(*pairs.back().connector, 0, 8, 1); });
  EXPECT_TRUE(wait_any(awaited, patience(), kNoSpin).ok());
  EXPECT_TRUE(is_there(awaited.back()));
  sender.join();
}

TEST(WaitAnyTcp, BytesThatTheSocketDidNotTakeLeaveMeanwhile) {
  constexpr size_t kBig = 12 << 20;  // past any socket buffer
  const Pair big = connect_pair(kTcp, {.to_listener = {kBig}, .to_connector = {8}});
  const Pair other = connect_pair(kLoopback, {.to_listener = {8}, .to_connector = {8}});
  std::thread receiver([&] {
    EXPECT_TRUE(big.listener->wait(0, 1, patience(), {}).ok());
    EXPECT_TRUE(is_filled(big.listener->payload(0), 1));
    put_filled(*big.listener, 0, 8, 1);
  });
  put_filled(*big.connector, 0, kBig, 1);
  const std::array<AwaitedMessage, 2> awaited = {{
      {.endpoint = other.connector.get(), .slot = 0, .seq = 1},
      {.endpoint = big.connector.get(), .slot = 0, .seq = 1},
  }};
  EXPECT_TRUE(wait_any(std::span(awaited).last(1), patience(), {}).ok());
  EXPECT_TRUE(wait_any(awaited, patience(), {}).ok());
  EXPECT_TRUE(is_there(awaited[1]));
  receiver.join();
}

TEST(WaitAnyTcp, UnsentBytesOfAnEndpointThatIsNotAwaitedLeaveToo) {
  constexpr size_t kBig = 12 << 20;  // past any socket buffer
  const Pair big = connect_pair(kTcp, {.to_listener = {kBig}, .to_connector = {8}});
  const Pair other = connect_pair(kLoopback, {.to_listener = {8}, .to_connector = {8}});
  put_filled(*big.connector, 0, kBig, 1);
  std::thread receiver([&] {
    EXPECT_TRUE(big.listener->wait(0, 1, patience(), {}).ok());
    EXPECT_TRUE(is_filled(big.listener->payload(0), 1));
    put_filled(*other.listener, 0, 8, 1);
  });
  std::vector<AwaitedMessage> awaited = {{.endpoint = other.connector.get(), .slot = 0, .seq = 1}};
  add_unsent(*other.connector, awaited);
  EXPECT_EQ(awaited.size(), 1);
  add_unsent(*big.connector, awaited);
  EXPECT_EQ(awaited.size(), 2);
  EXPECT_TRUE(wait_any(awaited, patience(), {}).ok());
  EXPECT_TRUE(is_there(awaited[0]));
  EXPECT_FALSE(big.connector->has_unsent());
  receiver.join();
}

// Reads slot 0's message while slot 1 is polled, after slot 0 was: as a socket's poll may do.
class OneStream final : public HostEndpoint {
 public:
  OneStream() : HostEndpoint(EndpointConfig{.receive_slots = {8, 8}}) {}
  WakeSource begin_sleep(SlotIdx /*slot*/) override {
    arrives_ = true;
    return FutexWord{.word = &never_, .seen = 0};
  }
  void end_sleep(SlotIdx /*slot*/) override {}
  void check_peer() override {}

 private:
  std::span<std::byte> send_memory(SlotIdx /*slot*/) override { return {}; }
  void publish(SlotIdx /*slot*/, size_t /*size_bytes*/, uint64_t /*seq*/) override {}
  void advance(SlotIdx slot, uint64_t /*seq*/) override {
    if (arrives_ && slot == 1) received(0) = {.seq = 1, .size_bytes = 0};
  }
  void wake() override {}
  [[nodiscard]] std::span<const std::byte> receive_memory(SlotIdx /*slot*/) const override {
    return {};
  }
  void revoke() override {}

  bool arrives_ = false;
  std::atomic<uint32_t> never_{0};
};

TEST(WaitAnyTcp, AMessageReadByThePollOfALaterSlotIsNotSleptOver) {
  Duration fastest = Duration::max();
  for (int round = 0; round < 10; ++round) {
    OneStream endpoint;
    const std::array<AwaitedMessage, 2> awaited = {{
        {.endpoint = &endpoint, .slot = 0, .seq = 1},
        {.endpoint = &endpoint, .slot = 1, .seq = 1},
    }};
    const TimePoint start = steady_clock().now();
    EXPECT_TRUE(wait_any(awaited, patience(), kNoSpin).ok());
    fastest = std::min(fastest, steady_clock().now() - start);
  }
  EXPECT_LT(fastest, kFullNap);
}

// From now on futex_waitv fails in this thread and those that it starts, as under a seccomp profile
// that does not know it.
void forbid_futex_waitv() {
  constexpr uint32_t kSysFutexWaitv = 449;
  std::array<sock_filter, 4> program = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kSysFutexWaitv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

TEST_P(WaitAny, ManagesWithoutFutexWaitv) {
  constexpr uint64_t kNumRounds = 100;
  std::thread filtered([&] {
    forbid_futex_waitv();
    std::atomic<uint32_t> word{0};
    const FutexWord sleeping{.word = &word, .seen = 0};
    EXPECT_FALSE(sleep_on_words({&sleeping, 1}, kFullNap));
    std::atomic<uint64_t> turn{0};
    std::thread sender([&] {
      for (uint64_t round = 1; round <= kNumRounds; ++round) {
        while (turn.load() < round) std::this_thread::yield();
        put_filled(there(round % kNumEndpoints), 1, 8, round);
      }
    });
    for (uint64_t round = 1; round <= kNumRounds; ++round) {
      turn = round;
      ASSERT_TRUE(wait_any(all(round), patience(), kNoSpin).ok());
      EXPECT_TRUE(here(round % kNumEndpoints).poll(1, round) == PollResult::kReady);
    }
    sender.join();
    EXPECT_EQ(
        wait_any(all(kNumRounds + 1), Deadline::after(std::chrono::milliseconds(2)), {}).code(),
        StatusCode::kDeadlineExceeded);
  });
  filtered.join();
}

}  // namespace
}  // namespace lamina
