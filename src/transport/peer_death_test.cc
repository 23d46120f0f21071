// A peer in another process that dies, stops, or answers: backends that cross processes.
#include <csignal>
#include <thread>

#include "transport/endpoint_testing.h"

namespace lamina {
namespace {

using transport_testing::ChildPeer;
using transport_testing::is_filled;
using transport_testing::patience;
using transport_testing::put_filled;
using transport_testing::Slots;

class PeerDeath : public testing::TestWithParam<TransportKind> {};

INSTANTIATE_TEST_SUITE_P(
    Backends,
    PeerDeath,
    testing::Values(TransportKind::kShm, TransportKind::kTcp, TransportKind::kCudaP2p),
    [](const auto& tested) { return std::string(transport_name(tested.param)); });

constexpr size_t kBytes = 64 << 10;
const Slots kSlots{.to_listener = {kBytes, 8}, .to_connector = {kBytes, 8}};

// Answers every message in slot 0 with the same bytes until it is told to stop in slot 1.
bool echo(Endpoint& endpoint) {
  for (uint64_t seq = 1;; ++seq) {
    if (!endpoint.wait(0, seq, patience(), {}).ok())
      return endpoint.poll(1, 1) == PollResult::kReady;
    if (!endpoint.put(0, endpoint.payload(0), seq).ok()) return false;
  }
}

// Says that it is there, and then nothing: waits for what never comes.
bool stay_silent(Endpoint& endpoint) {
  return endpoint.put(1, {}, 1).ok() && endpoint.wait(0, 1000, patience(), {}).ok();
}

TEST_P(PeerDeath, ProcessesExchangeMessages) {
  ChildPeer child(GetParam(), kSlots, echo);
  Endpoint& endpoint = child.endpoint();
  for (uint64_t seq = 1; seq <= 500; ++seq) {
    const size_t size = seq * 131 % (kBytes + 1);
    put_filled(endpoint, 0, size, seq);
    ASSERT_TRUE(endpoint.wait(0, seq, patience(), {}).ok());
    ASSERT_EQ(endpoint.payload(0).size(), size);
    ASSERT_TRUE(is_filled(endpoint.payload(0), seq)) << seq;
  }
  put_filled(endpoint, 1, 8, 1);
  endpoint.fence_peer();
  EXPECT_EQ(child.join(), 0);
}

TEST_P(PeerDeath, KillEndsAWait) {
  ChildPeer child(GetParam(), kSlots, stay_silent);
  ASSERT_TRUE(child.endpoint().wait(1, 1, patience(), {}).ok());
  child.signal(SIGKILL);
  EXPECT_EQ(child.endpoint().wait(0, 1, patience(), {}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(child.endpoint().poll(0, 1), PollResult::kDown);
  EXPECT_EQ(child.endpoint().poll(1, 1), PollResult::kReady);
  EXPECT_EQ(child.endpoint().put(0, {}, 1).code(), StatusCode::kUnavailable);
  EXPECT_EQ(child.join(), -SIGKILL);
}

TEST_P(PeerDeath, KillDuringAnExchangeIsNoticed) {
  ChildPeer child(GetParam(), kSlots, echo);
  std::thread killer;
  Status status;
  for (uint64_t seq = 1; status.ok(); ++seq) {
    if (seq == 50) killer = std::thread([&] { child.signal(SIGKILL); });
    status = child.endpoint().put(0, std::vector<std::byte>(kBytes), seq);
    if (status.ok()) status = child.endpoint().wait(0, seq, patience(), {});
  }
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.message();
  killer.join();
  child.endpoint().fence_peer();
}

TEST_P(PeerDeath, AStoppedPeerIsLeftToDeadlineAndAbort) {
  ChildPeer child(GetParam(), kSlots, stay_silent);
  Endpoint& endpoint = child.endpoint();
  ASSERT_TRUE(endpoint.wait(1, 1, patience(), {}).ok());
  child.signal(SIGSTOP);
  put_filled(endpoint, 0, kBytes, 1);  // nobody reads it, and nothing blocks
  EXPECT_EQ(endpoint.wait(0, 1, Deadline::after(std::chrono::milliseconds(120)), {}).code(),
            StatusCode::kDeadlineExceeded);
  std::thread aborting([&] { endpoint.abort(); });
  EXPECT_EQ(endpoint.wait(0, 1, patience(), {}).code(), StatusCode::kUnavailable);
  aborting.join();
  endpoint.fence_peer();
}

}  // namespace
}  // namespace lamina
