// The tcp backend against strangers and liars, and its ways of naming hosts.
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/endpoint_testing.h"
#include "transport/tcp/frame.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/socket.h"

namespace lamina {
namespace {

using transport_testing::complete_pair;
using transport_testing::connector_config;
using transport_testing::is_filled;
using transport_testing::listener_config;
using transport_testing::Pair;
using transport_testing::patience;
using transport_testing::put_filled;
using transport_testing::Slots;
using transport_testing::thrown_code;

constexpr auto kTcp = TransportKind::kTcp;
const Slots kSlots{.to_listener = {256, 64}, .to_connector = {64}};

uint16_t port_of(const std::string& blob) {
  return static_cast<uint16_t>(
      std::stoi(decode_blob(blob, connector_config(kTcp, kSlots)).locator));
}

bool send_bytes(const FileHandle& socket, const void* data, size_t size_bytes) {
  return ::send(socket.get(), data, size_bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(size_bytes);
}

// A peer that knows the token and speaks by hand from then on.
class RawPeer {
 public:
  RawPeer() {
    const auto pending = prepare_endpoint(listener_config(kTcp, kSlots));
    const auto ours = prepare_endpoint(connector_config(kTcp, kSlots));
    const Blob blob = decode_blob(pending->blob(), connector_config(kTcp, kSlots));
    const Blob our_blob = decode_blob(ours->blob(), listener_config(kTcp, kSlots));
    std::thread listening([&] { endpoint = pending->complete(ours->blob(), patience()); });
    socket = connect_to("127.0.0.1", port_of(pending->blob()), patience());
    introduce(socket.get(),
              {.from = blob.to, .to = blob.from, .token = blob.token},
              {.token = our_blob.token},
              patience());
    listening.join();
  }
  void send_frame(const FrameHeader& header, size_t payload_bytes) const {
    std::vector<std::byte> bytes(sizeof(header) + payload_bytes);
    std::memcpy(bytes.data(), &header, sizeof(header));
    ASSERT_TRUE(send_bytes(socket, bytes.data(), bytes.size()));
  }

  std::unique_ptr<Endpoint> endpoint;
  FileHandle socket;
};

TEST(HostileTcp, LyingFramesTakeTheEndpointDown) {
  const std::vector<FrameHeader> lies = {
      {.magic = 0x12345678, .slot = 0, .seq = 2, .payload_bytes = 0},
      {.slot = 2, .seq = 2, .payload_bytes = 0},
      {.slot = 0xFFFFFFFF, .seq = 2, .payload_bytes = 0},
      {.slot = 0, .seq = 2, .payload_bytes = 257},
      {.slot = 0, .seq = 2, .payload_bytes = ~uint64_t{0}},
      {.slot = 0, .seq = 1, .payload_bytes = 0},
      {.slot = 0, .seq = 0, .payload_bytes = 0},
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    const RawPeer peer;
    peer.send_frame({.slot = 0, .seq = 1, .payload_bytes = 256}, 256);
    ASSERT_TRUE(peer.endpoint->wait(0, 1, patience(), {}).ok());
    peer.send_frame(lies[i], 16);
    EXPECT_EQ(peer.endpoint->wait(1, 9, patience(), {}).code(), StatusCode::kUnavailable) << i;
    EXPECT_EQ(peer.endpoint->poll(0, 1), PollResult::kDown) << i;
  }
}

TEST(HostileTcp, AConnectionCutInsideAMessageIsDown) {
  for (const size_t sent_bytes : {size_t{1}, sizeof(FrameHeader), sizeof(FrameHeader) + 100}) {
    RawPeer peer;
    peer.send_frame({.slot = 1, .seq = 1, .payload_bytes = 5}, 5);
    std::array<std::byte, sizeof(FrameHeader) + 256> frame{};
    const FrameHeader header{.slot = 0, .seq = 1, .payload_bytes = 256};
    std::memcpy(frame.data(), &header, sizeof(header));
    ASSERT_TRUE(send_bytes(peer.socket, frame.data(), sent_bytes));
    peer.socket.reset();
    const Status status = peer.endpoint->wait(0, 1, patience(), {});
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_NE(status.message().find("middle of a message"), std::string::npos) << status.message();
    EXPECT_EQ(peer.endpoint->poll(1, 1), PollResult::kReady);
  }
}

TEST(HostileTcp, FramesMayComeByteByByte) {
  const RawPeer peer;
  std::vector<std::byte> frame(sizeof(FrameHeader) + 64);
  const FrameHeader header{.slot = 1, .seq = 6, .payload_bytes = 64};
  std::memcpy(frame.data(), &header, sizeof(header));
  transport_testing::fill(std::span(frame).subspan(sizeof(header)), 6);
  for (const std::byte& byte : frame) {
    EXPECT_EQ(peer.endpoint->poll(1, 6), PollResult::kPending);
    ASSERT_TRUE(send_bytes(peer.socket, &byte, 1));
  }
  ASSERT_TRUE(peer.endpoint->wait(1, 6, patience(), {}).ok());
  EXPECT_TRUE(is_filled(peer.endpoint->payload(1), 6));
}

// The peer acknowledges a message that has not left: composing the next one must not mix the two.
TEST(HostileTcp, AnAnswerToWhatWasNotSentTakesTheEndpointDown) {
  constexpr size_t kBytes = 16 << 20;  // past any socket buffer
  const Slots slots{.to_listener = {8}, .to_connector = {kBytes}};
  const auto listener = prepare_endpoint(listener_config(kTcp, slots));
  const auto connector = prepare_endpoint(connector_config(kTcp, slots));
  const Pair pair = complete_pair(*listener, *connector);
  put_filled(*pair.listener, 0, kBytes, 1);
  put_filled(*pair.connector, 0, 8, 1);
  ASSERT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
  EXPECT_EQ(pair.listener->stage(0, kBytes).size(), kBytes);
  EXPECT_EQ(pair.listener->commit(0, kBytes, 2).code(), StatusCode::kUnavailable);
}

TEST(HostileTcp, AFloodOfMessagesDoesNotHoldAPoll) {
  const RawPeer peer;
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    for (uint64_t seq = 1; !stop; ++seq) {
      const FrameHeader header{.slot = 1, .seq = seq, .payload_bytes = 0};
      if (!send_bytes(peer.socket, &header, sizeof(header))) std::this_thread::yield();
    }
  });
  for (int i = 0; i < 1000; ++i) {
    if (peer.endpoint->poll(0, 1) == PollResult::kDown) break;  // a frame was cut by a full socket
  }
  stop = true;
  flood.join();
}

TEST(HostileTcp, StrangersDoNotKeepThePeerOut) {
  const auto listener = prepare_endpoint(listener_config(kTcp, kSlots));
  const auto connector = prepare_endpoint(connector_config(kTcp, kSlots));
  const uint16_t port = port_of(listener->blob());
  const Blob blob = decode_blob(listener->blob(), connector_config(kTcp, kSlots));
  std::vector<FileHandle> strangers;
  strangers.reserve(40);
  for (int i = 0; i < 40; ++i) strangers.push_back(connect_to("127.0.0.1", port, patience()));
  const std::string garbage(500, 'G');
  ASSERT_TRUE(send_bytes(strangers[1], garbage.data(), garbage.size()));
  ASSERT_TRUE(send_bytes(strangers[2], garbage.data(), 3));
  strangers[3].reset();
  const Hello wrong_token{.from = blob.to, .to = blob.from, .token = random_token()};
  ASSERT_TRUE(send_bytes(strangers[4], &wrong_token, sizeof(wrong_token)));
  Hello stale{.from = blob.to, .to = blob.from, .token = blob.token};
  stale.from.epoch -= 1;
  ASSERT_TRUE(send_bytes(strangers[39], &stale, sizeof(stale)));

  const Pair pair = complete_pair(*listener, *connector);
  put_filled(*pair.connector, 0, 256, 1);
  ASSERT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
  EXPECT_TRUE(is_filled(pair.listener->payload(0), 1));
}

TEST(HostileTcp, AListenerWaitsUntilItsDeadlineAndNoLonger) {
  const auto listener = prepare_endpoint(listener_config(kTcp, kSlots));
  const auto connector = prepare_endpoint(connector_config(kTcp, kSlots));
  const FileHandle silent = connect_to("127.0.0.1", port_of(listener->blob()), patience());
  EXPECT_EQ(thrown_code([&] {
              listener->complete(connector->blob(), Deadline::after(std::chrono::milliseconds(5)));
            }),
            StatusCode::kDeadlineExceeded);
}

TEST(HostileTcp, AListenerWithoutTheTokenIsNotBelieved) {
  const FileHandle impostor = listen_on("127.0.0.1", 0);
  const auto connector = prepare_endpoint(connector_config(kTcp, kSlots));
  const EndpointConfig config = listener_config(kTcp, kSlots);
  const Blob blob = make_blob(config, random_token(), std::to_string(local_port(impostor.get())));
  std::thread accepting([&] {
    ASSERT_TRUE(wait_for_events(impostor.get(), POLLIN, patience()));
    const FileHandle socket(::accept(impostor.get(), nullptr, nullptr));
    const HelloReply reply{.token = random_token()};
    ASSERT_TRUE(send_bytes(socket, &reply, sizeof(reply)));
    std::array<std::byte, sizeof(Hello)> hello{};
    ASSERT_EQ(::recv(socket.get(), hello.data(), hello.size(), MSG_WAITALL),
              static_cast<ssize_t>(hello.size()));
  });
  EXPECT_EQ(thrown_code([&] { connector->complete(encode_blob(blob), patience()); }),
            StatusCode::kUnauthenticated);
  accepting.join();
}

TEST(HostileTcp, ExactlyOneSideListens) {
  EndpointConfig config = connector_config(kTcp, kSlots);
  const auto neither = prepare_endpoint(config);
  const auto listener = prepare_endpoint(listener_config(kTcp, kSlots));
  config.listens = true;
  const auto both = prepare_endpoint(config);
  EXPECT_EQ(thrown_code([&] { listener->complete(both->blob(), patience()); }),
            StatusCode::kInvalidArgument);
  EndpointConfig also_connects = listener_config(kTcp, kSlots);
  also_connects.listens = false;
  const auto another = prepare_endpoint(also_connects);
  EXPECT_EQ(thrown_code([&] { another->complete(neither->blob(), patience()); }),
            StatusCode::kInvalidArgument);
}

class TcpHost : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Hosts, TcpHost, testing::Values("127.0.0.1", "::1", "localhost"));

TEST_P(TcpHost, IsListenedOnAndFound) {
  EndpointConfig listening = listener_config(kTcp, kSlots);
  EndpointConfig connecting = connector_config(kTcp, kSlots);
  listening.host = connecting.host = GetParam();
  std::unique_ptr<PendingEndpoint> listener;
  try {
    listener = prepare_endpoint(listening);
  } catch (const Error& error) {
    if (listening.host != "::1") throw;
    GTEST_SKIP() << "skipped: no IPv6 here: " << error.what();
  }
  const Pair pair = complete_pair(*listener, *prepare_endpoint(connecting));
  put_filled(*pair.connector, 0, 9, 1);
  EXPECT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
}

TEST(TcpSetup, ReportsHostsThatCannotBe) {
  EndpointConfig config = listener_config(kTcp, kSlots);
  config.host = "no-such-host.invalid";
  EXPECT_EQ(thrown_code([&] { prepare_endpoint(config); }), StatusCode::kUnavailable);
  config.host = "192.0.2.1";  // reserved for documentation: nobody's address
  EXPECT_EQ(thrown_code([&] { prepare_endpoint(config); }), StatusCode::kUnavailable);
  const auto connector = prepare_endpoint(connector_config(kTcp, kSlots));
  std::string blob;
  {
    const auto gone = prepare_endpoint(listener_config(kTcp, kSlots));
    blob = gone->blob();
  }
  EXPECT_EQ(thrown_code([&] { connector->complete(blob, patience()); }), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lamina
