// The nccl backend between two GPUs, by NCCL itself: called one by one, replayed from graphs, ended
// by a peer's death and by time. Two processes, a GPU each; skips with fewer. Peer access and
// shared memory are off, so that bytes cross sockets, as between hosts. Starts itself as the other
// process, which sends back what comes until its endpoint ends.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "device/buffer.h"
#include "device/cuda/memory.h"
#include "device/gpu_graph.h"
#include "device/gpu_stream.h"
#include "transport/device_link.h"
#include "transport/measure/peer_process.h"

namespace lamina::nccl {
namespace {

constexpr std::string_view kPeerArgument = "nccl-peer";
constexpr Duration kPatience = std::chrono::seconds(60);
constexpr size_t kRowBytes = 256;
constexpr size_t kNumRows = 64;
constexpr size_t kStrideBytes = 3 * kRowBytes;
constexpr uint32_t kSlotBytes = kRowBytes * kNumRows;
// Messages of a step: an exchange each.
constexpr uint32_t kExchanges = 8;
// Steps that the peer takes part in before it stays away.
constexpr int kSteps = 20;

EndpointConfig config_of(bool listens) {
  return {.kind = TransportKind::kNccl,
          .self = {.id = listens ? 2U : 1U, .epoch = 1},
          .peer = {.id = listens ? 1U : 2U, .epoch = 1},
          .receive_slots = {64},
          .send_slots = {64},
          .listens = listens,
          .device = {DeviceKind::kCuda, listens ? 1 : 0},
          .device_receive_slots = {kSlotBytes},
          .device_send_slots = {kSlotBytes}};
}

std::unique_ptr<Endpoint> connect(bool listens, int socket) {
  const auto pending = prepare_endpoint(config_of(listens));
  measure::send_text(socket, pending->blob());
  const Deadline deadline = Deadline::after(kPatience);
  return pending->complete(measure::receive_text(socket, deadline), deadline);
}

// A GPU with a channel to the other, and a matrix with gaps that is sent and received.
class End {
 public:
  End(bool listens, int socket, Duration max_wait)
      : asks_(!listens),
        stream_({DeviceKind::kCuda, listens ? 1 : 0}),
        sent_(MemoryKind::kCuda, (use_device_of(stream_.view()), kNumRows * kStrideBytes)),
        received_(MemoryKind::kCuda, kNumRows * kStrideBytes),
        staged_(MemoryKind::kPinnedHost, kNumRows * kStrideBytes),
        endpoint_(connect(listens, socket)) {
    DeviceLink* const link = endpoint_->device_link();
    channel_ =
        link->open_channel({&link, 1}, {.idx = 0, .stream = stream_.view(), .max_wait = max_wait});
  }
  End(const End&) = delete;
  End& operator=(const End&) = delete;
  ~End() {
    channel_->abort();
    (void)synchronize(stream_.view());
  }

  // All exchanges of a step, enqueued: who asks sends first, who answers sends back what came.
  Status enqueue() {
    const auto message = [](const Buffer& matrix, uint32_t use) {
      return std::array{DeviceTransfer{.rows = {.data = matrix.data(),
                                                .num_rows = kNumRows,
                                                .row_bytes = kRowBytes,
                                                .stride_bytes = kStrideBytes},
                                       .use = use}};
    };
    for (uint32_t use = 1; use <= kExchanges; ++use) {
      if (asks_) LAMINA_RETURN_IF_ERROR(channel_->send(message(sent_, use)));
      LAMINA_RETURN_IF_ERROR(channel_->receive(message(received_, use)));
      if (!asks_) LAMINA_RETURN_IF_ERROR(channel_->send(message(received_, use)));
    }
    return channel_->end_step(kExchanges);
  }
  Result<GpuGraph> capture() {
    return GpuGraph::capture(stream(), [this] { return enqueue(); });
  }

  Status set(uint8_t seed) {
    for (size_t i = 0; i < staged_.size_bytes(); ++i) staged_.data()[i] = byte_of(seed, i);
    LAMINA_RETURN_IF_ERROR(copy(sent_.data(), staged_.data(), sent_.size_bytes(), stream()));
    return synchronize(stream());
  }
  // Rows came back as they were sent, and nothing between them was touched.
  void expect(uint8_t seed) {
    ASSERT_TRUE(copy(staged_.data(), received_.data(), received_.size_bytes(), stream()).ok());
    ASSERT_TRUE(synchronize(stream()).ok());
    size_t num_wrong = 0;
    for (size_t i = 0; i < staged_.size_bytes(); ++i) {
      const bool is_row = i % kStrideBytes < kRowBytes;
      num_wrong += staged_.data()[i] != (is_row ? byte_of(seed, i) : std::byte{0}) ? 1 : 0;
    }
    EXPECT_EQ(num_wrong, 0U) << "seed " << int{seed};
  }
  [[nodiscard]] StreamView stream() const { return stream_.view(); }
  [[nodiscard]] DeviceChannel& channel() { return *channel_; }

 private:
  static std::byte byte_of(uint8_t seed, size_t idx) {
    return static_cast<std::byte>((idx * 7 + idx / 251 + seed) & 0xFF);
  }

  bool asks_;
  GpuStream stream_;
  Buffer sent_;
  Buffer received_;
  Buffer staged_;
  std::unique_ptr<Endpoint> endpoint_;
  std::unique_ptr<DeviceChannel> channel_;
};

// Eager first, then as graphs, of which one more is launched than the asking side has a partner for
// if it asks more often: it then waits for a peer that has nothing to send.
int run_peer() {
  try {
    End end(/*listens=*/true, measure::kPeerSocket, kPatience);
    throw_if_error(end.enqueue());
    throw_if_error(synchronize(end.stream()));
    const GpuGraph graph = end.capture().value_or_throw();
    for (int step = 1; step < kSteps; ++step) {
      throw_if_error(graph.launch(end.stream()));
      throw_if_error(synchronize(end.stream()));
      throw_if_error(end.channel().status());
    }
    // Until the asking process has left.
    (void)measure::receive_struct<char>(measure::kPeerSocket, Deadline::after(kPatience));
  } catch (const Error& error) {
    if (error.code() == StatusCode::kUnavailable) return 0;
    std::fprintf(stderr, "peer: %s\n", error.what());
  }
  return 1;
}

class NcclGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() < 2) GTEST_SKIP() << "fewer than two GPUs";
  }

  static void make_steps(End& end, const GpuGraph& graph, int num_steps) {
    for (int step = 0; step < num_steps; ++step) {
      const auto seed = static_cast<uint8_t>(step + 1);
      ASSERT_TRUE(end.set(seed).ok());
      ASSERT_TRUE(graph.launch(end.stream()).ok());
      ASSERT_TRUE(synchronize(end.stream()).ok());
      ASSERT_TRUE(end.channel().status().ok()) << end.channel().status().to_string();
      end.expect(seed);
    }
  }
  static void first_step(End& end) {
    ASSERT_TRUE(end.set(200).ok());
    const Status enqueued = end.enqueue();
    ASSERT_TRUE(enqueued.ok()) << enqueued.to_string();
    ASSERT_TRUE(synchronize(end.stream()).ok());
    end.expect(200);
  }
  // A whole life of a session: the GPUs are as good as before.
  static void expect_steps() {
    const measure::PeerProcess peer{std::string(kPeerArgument)};
    End end(/*listens=*/false, peer.socket(), kPatience);
    ASSERT_NO_FATAL_FAILURE(first_step(end));
    const GpuGraph graph = end.capture().value_or_throw();
    make_steps(end, graph, kSteps - 1);
  }
};

TEST_F(NcclGpu, CarriesRowsInGraphs) {
  expect_steps();
}

// One step more than the peer makes, which is under way when it is killed.
TEST_F(NcclGpu, APeersDeathEndsAStep) {
  {
    const measure::PeerProcess peer{std::string(kPeerArgument)};
    End end(/*listens=*/false, peer.socket(), kPatience);
    ASSERT_NO_FATAL_FAILURE(first_step(end));
    const GpuGraph graph = end.capture().value_or_throw();
    ASSERT_NO_FATAL_FAILURE(make_steps(end, graph, kSteps - 1));
    ASSERT_TRUE(graph.launch(end.stream()).ok());
    EXPECT_TRUE(has_pending_work(end.stream()));
    const auto killed = std::chrono::steady_clock::now();
    peer.kill();
    EXPECT_TRUE(synchronize(end.stream()).ok());
    const auto took = std::chrono::steady_clock::now() - killed;
    EXPECT_EQ(end.channel().status().code(), StatusCode::kUnavailable)
        << end.channel().status().to_string();
    EXPECT_LT(took, std::chrono::seconds(1));
    std::printf("ended after %.0f ms: %s\n",
                std::chrono::duration<double, std::milli>(took).count(),
                end.channel().status().to_string().c_str());
  }
  expect_steps();
}

TEST_F(NcclGpu, AStepThatLastsTooLongEnds) {
  {
    const measure::PeerProcess peer{std::string(kPeerArgument)};
    End end(/*listens=*/false, peer.socket(), std::chrono::seconds(5));
    ASSERT_NO_FATAL_FAILURE(first_step(end));
    const GpuGraph graph = end.capture().value_or_throw();
    ASSERT_NO_FATAL_FAILURE(make_steps(end, graph, kSteps - 1));
    ASSERT_TRUE(graph.launch(end.stream()).ok());
    EXPECT_TRUE(synchronize(end.stream()).ok());
    EXPECT_EQ(end.channel().status().code(), StatusCode::kDeadlineExceeded)
        << end.channel().status().to_string();
  }
  expect_steps();
}

// What the user has set stays.
void cross_sockets() {
  constexpr int kKeep = 0;
  ::setenv("NCCL_P2P_DISABLE", "1", kKeep);
  ::setenv("NCCL_SHM_DISABLE", "1", kKeep);
  ::setenv("NCCL_SOCKET_IFNAME", "lo", kKeep);
}

}  // namespace
}  // namespace lamina::nccl

// Or the process of the other GPU.
int main(int argc, char** argv) {
  lamina::nccl::cross_sockets();
  if (argc > 1 && argv[1] == lamina::nccl::kPeerArgument) return lamina::nccl::run_peer();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
