// A link between two threads that stand for processes, both on CPUs: what is set up, what is
// refused, and messages through it. Links of GPUs: p2p_gpu_test.cc.
#include "transport/cuda_p2p/link.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <thread>
#include <utility>

#include "base/error.h"
#include "transport/cuda_p2p/descriptor_socket.h"
#include "transport/cuda_p2p/host_messages.h"
#include "transport/cuda_p2p/step_guard.h"
#include "transport/peer_watch.h"

namespace lamina::cuda_p2p {
namespace {

constexpr uint32_t kSmallBytes = 64;
constexpr uint32_t kLargeBytes = 256 << 10;

Deadline patience() {
  return Deadline::after(std::chrono::seconds(60));
}

LinkConfig config_of(uint64_t self) {
  LinkConfig config;
  config.self = {.id = self, .epoch = 1};
  config.peer = {.id = 3 - self, .epoch = 1};
  config.place = Place::kHostMemory;
  config.receive_slots = {kSmallBytes, kLargeBytes};
  config.send_slots = {kSmallBytes, kLargeBytes};
  return config;
}

struct Sockets {
  Sockets() {
    std::array<int, 2> raw{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, raw.data()), 0);
    ours.reset(raw[0]);
    theirs.reset(raw[1]);
  }
  FileHandle ours;
  FileHandle theirs;
};

// What our side gets from a peer of that configuration.
StatusCode code_with_peer(const LinkConfig& peer) {
  const Sockets sockets;
  std::thread other([&] {
    try {
      const Link link(peer, sockets.theirs.get(), patience());
    } catch (const Error&) {  // it refuses us as well
    }
  });
  StatusCode code = StatusCode::kOk;
  try {
    const Link link(config_of(1), sockets.ours.get(), patience());
  } catch (const Error& error) {
    code = error.code();
  }
  other.join();
  return code;
}

TEST(CudaP2pLink, RefusesWhoeverIsNotExpected) {
  EXPECT_EQ(code_with_peer(config_of(2)), StatusCode::kOk);
  LinkConfig stale = config_of(2);
  stale.self.epoch = 2;
  EXPECT_EQ(code_with_peer(stale), StatusCode::kUnauthenticated);
  LinkConfig stranger = config_of(2);
  stranger.token[0] = std::byte{1};
  EXPECT_EQ(code_with_peer(stranger), StatusCode::kUnauthenticated);
  LinkConfig other_slots = config_of(2);
  other_slots.send_slots[0] *= 2;
  EXPECT_EQ(code_with_peer(other_slots), StatusCode::kInvalidArgument);
  LinkConfig other_limits = config_of(2);
  other_limits.limits.lines_bytes *= 2;
  EXPECT_EQ(code_with_peer(other_limits), StatusCode::kInvalidArgument);
}

TEST(CudaP2pLink, AnAbsentPeerIsAnError) {
  Sockets sockets;
  try {
    const Link link(
        config_of(1), sockets.ours.get(), Deadline::after(std::chrono::milliseconds(20)));
    FAIL() << "connected to nobody";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kDeadlineExceeded);
  }
  sockets.theirs.reset();
  try {
    const Link link(config_of(1), sockets.ours.get(), patience());
    FAIL() << "connected to a closed socket";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kUnavailable);
  }
}

TEST(CudaP2pLink, MemoryThatCouldShrinkIsRefused) {
  FileHandle file(::memfd_create("unsealed", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 4096), 0);
  try {
    map_host_memory(std::move(file), 4096, {});
    FAIL() << "mapped it";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
  }
}

TEST(CudaP2pLink, ADescriptorIsOwed) {
  const Sockets sockets;
  const std::array<std::byte, 8> bytes{};
  ASSERT_EQ(::send(sockets.theirs.get(), bytes.data(), bytes.size(), 0), 8);
  std::array<std::byte, 8> received{};
  try {
    receive_descriptor(sockets.ours.get(), received, patience());
    FAIL() << "took a message without one";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
  }
}

std::vector<std::byte> payload_of(uint64_t n, uint32_t size_bytes) {
  std::vector<std::byte> payload(size_bytes);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::byte>(n * 31 + i * 7);
  return payload;
}

// One end, on a CPU.
class End {
 public:
  End(uint64_t id, int socket)
      : link_(config_of(id), socket, patience()),
        guard_(StreamView(pool_), std::chrono::seconds(60)) {
    EXPECT_TRUE(guard_.begin_epoch(1).ok());
  }
  void put_nth(uint64_t n) {
    put(link_.outbox(slot(n)), link_.plan(size(n)), make_stamp(1, n), payload_of(n, size(n)));
  }
  void expect_nth(uint64_t n) {
    std::vector<std::byte> received(size(n));
    const Plan plan = link_.plan(size(n));
    ASSERT_TRUE(take(link_.inbox(slot(n)), plan, make_stamp(1, n), guard_.view(), received).ok());
    EXPECT_TRUE(has_begun(link_.inbox(slot(n)), plan, make_stamp(1, n)));
    EXPECT_EQ(received, payload_of(n, size(n))) << n;
  }
  StepGuard& guard() { return guard_; }
  Link& link() { return link_; }

 private:
  static SlotIdx slot(uint64_t n) { return n % 2; }
  static uint32_t size(uint64_t n) { return n % 2 == 0 ? kSmallBytes : kLargeBytes; }

  ThreadPool pool_{1};
  Link link_;
  StepGuard guard_;
};

TEST(CudaP2pLink, BothEndsExchangeMessages) {
  const Sockets sockets;
  constexpr uint64_t kMessages = 100;
  std::thread other([&] {
    End end(2, sockets.theirs.get());
    for (uint64_t n = 1; n <= kMessages; ++n) {
      end.expect_nth(n);
      end.put_nth(n);
    }
  });
  {
    End end(1, sockets.ours.get());
    for (uint64_t n = 1; n <= kMessages; ++n) {
      end.put_nth(n);
      end.expect_nth(n);
    }
  }
  other.join();
}

// An epoch after an error begins as the first did.
TEST(CudaP2pLink, AnAbortIsToldAndForgotten) {
  const Sockets sockets;
  std::optional<End> peer;
  std::thread other([&] { peer.emplace(2, sockets.theirs.get()); });
  End end(1, sockets.ours.get());
  other.join();
  std::vector<std::byte> received(kSmallBytes);
  const auto wait = [&](Stamp stamp) {
    return take(
        end.link().inbox(0), end.link().plan(kSmallBytes), stamp, end.guard().view(), received);
  };
  end.guard().abort();
  EXPECT_EQ(wait(make_stamp(1, 2)).code(), StatusCode::kUnavailable);
  EXPECT_EQ(end.guard().status().code(), StatusCode::kUnavailable);
  peer->put_nth(2);
  end.guard().view().state->num_stored[1] = 3;  // by blocks whose message was never sent
  ASSERT_TRUE(end.link().clear_inbox().ok());
  ASSERT_TRUE(end.guard().begin_epoch(2).ok());
  EXPECT_TRUE(end.guard().status().ok());
  EXPECT_EQ(end.guard().view().state->num_stored[1], 0U);
  EXPECT_FALSE(has_begun(end.link().inbox(0), end.link().plan(kSmallBytes), make_stamp(1, 2)));
  put(peer->link().outbox(0), end.link().plan(kSmallBytes), make_stamp(2, 1), payload_of(9, 64));
  EXPECT_TRUE(wait(make_stamp(2, 1)).ok());
  EXPECT_EQ(received, payload_of(9, kSmallBytes));
}

PeerWatchConfig watch_of(const Sockets& sockets, End& end) {
  return {.sockets = {sockets.ours.get()}, .on_leave = [&end] { end.guard().abort(); }};
}

// Not before the peer is gone, and then at once.
TEST(CudaP2pLink, AWatchEndsTheWaitsForAPeerThatIsGone) {
  Sockets sockets;
  std::optional<End> peer;
  std::thread other([&] { peer.emplace(2, sockets.theirs.get()); });
  End end(1, sockets.ours.get());
  other.join();
  {
    const PeerWatch watch(watch_of(sockets, end));
  }
  const PeerWatch watch(watch_of(sockets, end));
  peer->put_nth(2);
  end.expect_nth(2);
  EXPECT_FALSE(watch.has_left());
  std::thread dying([&] { sockets.theirs.reset(); });
  std::vector<std::byte> received(kSmallBytes);
  const Plan plan = end.link().plan(kSmallBytes);
  EXPECT_FALSE(
      take(end.link().inbox(0), plan, make_stamp(1, 4), end.guard().view(), received).ok());
  EXPECT_EQ(end.guard().status().code(), StatusCode::kUnavailable);
  dying.join();
}

}  // namespace
}  // namespace lamina::cuda_p2p
