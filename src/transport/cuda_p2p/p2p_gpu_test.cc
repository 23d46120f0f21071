// GPUs that talk to each other by themselves: two processes, a GPU each where there are two, else
// both on one, whose kernels then take turns and do less. Skips without a GPU. What is sent and
// merged within one GPU is tested without a second process.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "device/cuda/memory.h"
#include "transport/cuda_p2p/host_memory.h"
#include "transport/cuda_p2p/host_messages.h"
#include "transport/cuda_p2p/launch.h"
#include "transport/cuda_p2p/testing/pattern.h"
#include "transport/cuda_p2p/testing/stress_end.h"
#include "transport/device_link.h"
#include "transport/measure/commands.h"
#include "transport/measure/gpu_end.h"
#include "transport/peer_watch.h"

namespace lamina::cuda_p2p::testing {
namespace {

using measure::DeviceCommand;
using measure::Drive;
using measure::GpuEnd;
using measure::TripKind;

constexpr Device kOurs = {DeviceKind::kCuda, 0};
constexpr uint32_t kMaxBytes = 4 << 20;
constexpr Duration kLongWait = std::chrono::seconds(10);
constexpr Duration kShortWait = std::chrono::milliseconds(500);

// Whether the processes have a GPU each: else a round trip takes two turns of one GPU.
bool has_two_gpus() {
  return cuda::num_devices() > 1;
}

class CudaP2pGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() == 0) GTEST_SKIP() << "no GPU";
  }
};

// Of the other process: a GPU of its own where there is one.
Device peers_gpu() {
  return {DeviceKind::kCuda, has_two_gpus() ? 1 : 0};
}

// This process's GPU, and the process at the other end.
class Conversation {
 public:
  Conversation(Device peers, Place place, Duration max_wait = kLongWait)
      : peer_(std::string(measure::kPeerArgument)),
        end_((tell(peers, place),
              measure::DeviceEndConfig{.device = kOurs,
                                       .place = place,
                                       .asks = true,
                                       .max_bytes = kMaxBytes,
                                       .max_wait = max_wait}),
             peer_.socket(),
             Deadline::after(measure::kSetUpTime)) {}

  Status ask(DeviceCommand command) {
    command.epoch = ++epoch_;
    return measure::ask(end_, peer_.socket(), command);
  }
  GpuEnd& end() { return end_; }
  measure::PeerProcess& peer() { return peer_; }
  [[nodiscard]] uint32_t next_epoch() { return ++epoch_; }

 private:
  void tell(Device peers, Place place) {
    measure::send_struct(
        peer_.socket(),
        measure::PeerRole{
            .is_device = true, .max_bytes = kMaxBytes, .device = peers, .place = place});
  }

  measure::PeerProcess peer_;
  GpuEnd end_;
  uint32_t epoch_ = 0;
};

void expect_round_trips(Conversation& conversation, uint64_t count) {
  for (const Drive drive : {Drive::kPersistent, Drive::kGraph}) {
    for (const Form form : {Form::kLines, Form::kPushed}) {
      for (const uint32_t size : {16U, 16U << 10, 128U << 10, kMaxBytes}) {
        const TripKind kind = {.drive = drive, .form = form};
        if (!kind.can_carry(size)) continue;
        const uint64_t calls = drive == Drive::kGraph ? count / measure::kGraphTrips + 1 : count;
        const Status status = conversation.ask({.kind = kind, .size_bytes = size, .count = calls});
        ASSERT_TRUE(status.ok()) << size << " bytes: " << status.to_string();
        EXPECT_FALSE(conversation.end().times_us().empty());
      }
    }
  }
}

TEST_F(CudaP2pGpu, MakesRoundTripsBetweenGpus) {
  Conversation conversation(peers_gpu(), Place::kGpuMemory);
  expect_round_trips(conversation, has_two_gpus() ? 1000 : 20);
}

TEST_F(CudaP2pGpu, MakesRoundTripsThroughHostMemory) {
  Conversation conversation(peers_gpu(), Place::kHostMemory);
  expect_round_trips(conversation, has_two_gpus() ? 100 : 20);
}

TEST_F(CudaP2pGpu, MakesRoundTripsWithACpu) {
  Conversation conversation({}, Place::kHostMemory);
  expect_round_trips(conversation, 100);
}

Status run_stress(const StressCommand& command) {
  const measure::PeerProcess peer{std::string(kStressPeerArgument)};
  StressEnd end(kOurs, true, peer.socket());
  return measure::ask(end, peer.socket(), command);
}

// Of 10^6 messages, half are requests and half their replies.
TEST_F(CudaP2pGpu, EveryWordOfAMillionMessagesIsRight) {
  const Status status = run_stress({.num_requests = has_two_gpus() ? 500'000U : 500U});
  EXPECT_TRUE(status.ok()) << status.to_string();
}

TEST_F(CudaP2pGpu, TheStressTestFindsOneWrongWord) {
  const Status status = run_stress({.num_requests = 100, .faulty_message = 70});
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.to_string();
}

// Sees when a launch has begun, by a stream of its own beside the kernel that counts there. Made
// before: memory and streams may have to wait for all kernels of a GPU.
class TripWatch {
 public:
  Status wait_for_first(const GpuEnd& end) {
    const Deadline deadline = Deadline::after(kLongWait);
    while (!deadline.has_passed()) {
      LAMINA_RETURN_IF_ERROR(
          copy(cycles_.data(), end.cycles().data(), sizeof(uint64_t), stream_.view()));
      LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
      if (*reinterpret_cast<const uint64_t*>(cycles_.data()) != 0) return {};
    }
    return deadline_exceeded("no round trip was made");
  }

 private:
  GpuStream stream_{kOurs};
  Buffer cycles_{MemoryKind::kPinnedHost, sizeof(uint64_t)};
};

// With the host's word, and by the time limit alone.
void expect_death_is_told(bool host_watches) {
  Conversation conversation(peers_gpu(), Place::kGpuMemory, host_watches ? kLongWait : kShortWait);
  GpuEnd& end = conversation.end();
  TripWatch trip_watch;
  DeviceCommand command = {.size_bytes = 1024, .count = 10};
  ASSERT_TRUE(conversation.ask(command).ok());
  command.epoch = conversation.next_epoch();
  command.count = uint64_t{1} << 40;
  ASSERT_TRUE(begin(end, conversation.peer().socket(), command).ok());
  ASSERT_TRUE(end.enqueue_persistent(command).ok());
  std::optional<PeerWatch> watch;
  if (host_watches) {
    watch.emplace(PeerWatchConfig{.sockets = {conversation.peer().socket()},
                                  .on_leave = [&] { end.guard().abort(); }});
  }
  const Status begun = trip_watch.wait_for_first(end);
  ASSERT_TRUE(begun.ok()) << begun.to_string();
  EXPECT_TRUE(end.guard().status().ok()) << "failed before its peer died";
  const auto killed = std::chrono::steady_clock::now();
  conversation.peer().kill();
  const Status status = end.wait();
  const auto took = std::chrono::steady_clock::now() - killed;
  EXPECT_EQ(status.code(), host_watches ? StatusCode::kUnavailable : StatusCode::kDeadlineExceeded)
      << status.to_string();
  EXPECT_LT(took, std::chrono::seconds(1));
  std::printf("told after %.0f ms: %s\n",
              std::chrono::duration<double, std::milli>(took).count(),
              status.to_string().c_str());
}

TEST_F(CudaP2pGpu, APeersDeathEndsAWait) {
  expect_death_is_told(true);
  // The GPU is as good as before.
  Conversation next(peers_gpu(), Place::kGpuMemory);
  expect_round_trips(next, 20);
}

TEST_F(CudaP2pGpu, APeersDeathEndsAWaitByTime) {
  expect_death_is_told(false);
  Conversation next(peers_gpu(), Place::kGpuMemory);
  expect_round_trips(next, 20);
}

// The peer has not been told of the first, and does not send.
TEST_F(CudaP2pGpu, AnEpochAfterAnErrorIsAsGood) {
  Conversation conversation(peers_gpu(), Place::kGpuMemory, kShortWait);
  DeviceCommand command = {.kind = {.form = Form::kPushed}, .size_bytes = 4096, .count = 10};
  command.epoch = conversation.next_epoch();
  ASSERT_TRUE(conversation.end().begin(command).ok());
  EXPECT_EQ(conversation.end().run(command).code(), StatusCode::kDeadlineExceeded);
  const Status status = conversation.ask(command);
  EXPECT_TRUE(status.ok()) << status.to_string();
}

// A kernel that waits for nobody, and those after it, within one process.
TEST_F(CudaP2pGpu, AFailedStepSendsNothing) {
  const GpuStream stream(kOurs);
  StepGuard guard(stream.view(), std::chrono::milliseconds(50));
  ASSERT_TRUE(guard.begin_epoch(1).ok());
  const std::vector<uint32_t> capacities = {1024, 1024};
  const Buffer region(MemoryKind::kCuda, region_bytes(capacities, {}));
  const auto slots = slot_views(region.data(), capacities, {});
  const Buffer data(MemoryKind::kCuda, 1024);
  Transfers transfers{.step = guard.view(), .num_messages = 1, .messages = {}};
  transfers.messages[0] = {.slot = slots[0],
                           .plan = make_plan(1024, {}),
                           .rows = {.data = reinterpret_cast<Chunk*>(data.data())},
                           .use = 1};
  ASSERT_TRUE(receive(transfers, stream.view()).ok());
  transfers.messages[0].slot = slots[1];
  ASSERT_TRUE(send(transfers, stream.view()).ok());
  ASSERT_TRUE(synchronize(stream.view()).ok());
  EXPECT_EQ(guard.status().code(), StatusCode::kDeadlineExceeded) << guard.status().to_string();
  const Buffer seen(MemoryKind::kPinnedHost, region.size_bytes());
  ASSERT_TRUE(copy(seen.data(), region.data(), region.size_bytes(), stream.view()).ok());
  ASSERT_TRUE(synchronize(stream.view()).ok());
  const std::span<const std::byte> bytes = seen.bytes();
  EXPECT_TRUE(
      std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{}; }));
}

// Two messages in one launch, of rows that lie apart on either side; nothing is written between
// them.
TEST_F(CudaP2pGpu, RowsAreSentAndReceivedInPlace) {
  constexpr uint32_t kRows = 5;
  constexpr uint32_t kRowChunks = 3;
  constexpr uint32_t kFromStride = 7;
  constexpr uint32_t kToStride = 4;
  constexpr Limits kLimits{.lines_bytes = 128, .lines_part_bytes = 64, .pushed_part_bytes = 64};
  const GpuStream stream(kOurs);
  StepGuard guard(stream.view(), kLongWait);
  ASSERT_TRUE(guard.begin_epoch(1).ok());
  const std::vector<uint32_t> capacities = {128, kRows * kRowChunks * 16};
  const Buffer region(MemoryKind::kCuda, region_bytes(capacities, kLimits));
  const auto slots = slot_views(region.data(), capacities, kLimits);
  const Buffer from(MemoryKind::kCuda, kRows * kFromStride * sizeof(Chunk));
  const Buffer to(MemoryKind::kCuda, 2 * kRows * kToStride * sizeof(Chunk));
  const Buffer staged(MemoryKind::kPinnedHost, std::max(from.size_bytes(), to.size_bytes()));
  auto* const chunks = reinterpret_cast<Chunk*>(staged.data());
  for (uint32_t i = 0; i < kRows * kFromStride; ++i) chunks[i] = pattern(3, i);
  ASSERT_TRUE(copy(from.data(), staged.data(), from.size_bytes(), stream.view()).ok());
  // Two rows as lines, and all of them pushed.
  constexpr uint32_t kNumRows[] = {2, kRows};
  Transfers sends{.step = guard.view(), .num_messages = 2, .messages = {}};
  Transfers receives = sends;
  for (uint32_t m = 0; m < 2; ++m) {
    const Plan plan = make_plan(kNumRows[m] * kRowChunks * 16, kLimits);
    auto* const target = reinterpret_cast<Chunk*>(to.data()) + m * kRows * kToStride;
    sends.messages[m] = {
        slots[m], plan, {reinterpret_cast<Chunk*>(from.data()), kRowChunks, kFromStride}, m + 1};
    receives.messages[m] = {slots[m], plan, {target, kRowChunks, kToStride}, m + 1};
  }
  ASSERT_TRUE(lamina::cuda_p2p::send(sends, stream.view()).ok());
  ASSERT_TRUE(receive(receives, stream.view()).ok());
  ASSERT_TRUE(copy(staged.data(), to.data(), to.size_bytes(), stream.view()).ok());
  ASSERT_TRUE(synchronize(stream.view()).ok());
  ASSERT_TRUE(guard.status().ok()) << guard.status().to_string();
  for (uint32_t i = 0; i < 2 * kRows * kToStride; ++i) {
    const uint32_t row = i / kToStride % kRows;
    const uint32_t column = i % kToStride;
    const bool is_sent = column < kRowChunks && row < kNumRows[i / kToStride / kRows];
    EXPECT_EQ(chunks[i], is_sent ? pattern(3, row * kFromStride + column) : Chunk{}) << i;
  }
}

// Partials of three sources, sent by one launch on one stream and merged on another.
class MergeCase {
 public:
  explicit MergeCase(const Limits& limits)
      : limits_(limits),
        region_(MemoryKind::kCuda, region_bytes(kCapacities, limits)),
        slots_(slot_views(region_.data(), kCapacities, limits)),
        host_region_(region_.size_bytes() / sizeof(SlotWords) + 1),
        host_slots_(
            slot_views(reinterpret_cast<std::byte*>(host_region_.data()), kCapacities, limits)) {
    load_kernels(kOurs);
    EXPECT_TRUE(send_guard_.begin_epoch(1).ok());
    EXPECT_TRUE(merge_guard_.begin_epoch(1).ok());
    sends_.step = send_guard_.view();
    merge_.step = merge_guard_.view();
    merge_.shape = kShape;
    merge_.out = out_.data();
    merge_.out_stride = kShape.num_heads * kShape.row_chunks * kPartialFloats;
    merge_.lse = reinterpret_cast<float*>(lse_.data());
    for (uint32_t source = 0; source < kSources; ++source) add(source);
  }

  // The merge waits for what is sent after it.
  Status run() {
    LAMINA_RETURN_IF_ERROR(receive_merged(merge_, merging_.view()));
    LAMINA_RETURN_IF_ERROR(lamina::cuda_p2p::send(sends_, sending_.view()));
    LAMINA_RETURN_IF_ERROR(synchronize(sending_.view()));
    LAMINA_RETURN_IF_ERROR(synchronize(merging_.view()));
    return merge_guard_.status();
  }

  // Within what expf and logf of GPU and CPU differ by.
  void expect_as_on_the_host() {
    const Buffer out(MemoryKind::kPinnedHost, out_.size_bytes());
    const Buffer lse(MemoryKind::kPinnedHost, lse_.size_bytes());
    ASSERT_TRUE(copy(out.data(), out_.data(), out.size_bytes(), merging_.view()).ok());
    ASSERT_TRUE(copy(lse.data(), lse_.data(), lse.size_bytes(), merging_.view()).ok());
    ASSERT_TRUE(synchronize(merging_.view()).ok());
    const auto* const outs = reinterpret_cast<const float*>(out.data());
    const auto* const lses = reinterpret_cast<const float*>(lse.data());
    const auto compare = [&](uint32_t element, const PartialChunk& wanted) {
      for (uint32_t i = 0; i < 4; ++i) {
        EXPECT_NEAR(outs[size_t{element} * 4 + i], wanted.out[i], 1e-5F) << element;
      }
      EXPECT_NEAR(lses[element / kShape.row_chunks], wanted.lse, 1e-5F) << element;
    };
    StepState state{.base = make_stamp(1, 0)};
    StepControl control{};
    EXPECT_TRUE(merge_messages<HostMemory>(OneThread(),
                                           host_sources_,
                                           kSources,
                                           kShape,
                                           {&state, &control, kLongWait.count()},
                                           state.base,
                                           compare));
  }

 private:
  static constexpr uint32_t kSources = 3;
  static constexpr uint32_t kTokens = 37;
  static constexpr uint32_t kHeads = 8;
  static constexpr uint32_t kDim = 128;
  static constexpr MergeShape kShape{
      .num_tokens = kTokens, .num_heads = kHeads, .row_chunks = kDim / 4};
  static constexpr uint32_t kHeadRanges[kSources][2] = {{0, 8}, {0, 5}, {3, 8}};
  static constexpr uint32_t bytes_of(uint32_t source) {
    return partial_bytes(kTokens * (kHeadRanges[source][1] - kHeadRanges[source][0]), kDim);
  }
  static inline const std::vector<uint32_t> kCapacities = {bytes_of(0), bytes_of(1), bytes_of(2)};

  // To both regions, the host's at once.
  void add(uint32_t source) {
    const Plan plan = make_plan(bytes_of(source), limits_);
    const size_t size_bytes = plan.num_chunks * sizeof(Chunk);
    const Buffer staged(MemoryKind::kPinnedHost, size_bytes);
    auto* const values = reinterpret_cast<float*>(staged.data());
    for (size_t i = 0; i < size_bytes / sizeof(float); ++i) {
      values[i] = 4.0F * rng_.next_float() - 2.0F;
    }
    Buffer& partial = partials_.emplace_back(MemoryKind::kCuda, size_bytes);
    EXPECT_TRUE(copy(partial.data(), staged.data(), size_bytes, sending_.view()).ok());
    EXPECT_TRUE(synchronize(sending_.view()).ok());
    const uint32_t use = source + 1;
    sends_.messages[sends_.num_messages++] = {
        .slot = slots_[source],
        .plan = plan,
        .rows = {.data = reinterpret_cast<Chunk*>(partial.data())},
        .use = use};
    merge_.sources[merge_.num_sources++] = {.slot = slots_[source],
                                            .plan = plan,
                                            .use = use,
                                            .head_begin = kHeadRanges[source][0],
                                            .head_end = kHeadRanges[source][1]};
    host_sources_[source] = merge_.sources[source];
    host_sources_[source].slot = host_slots_[source];
    put(host_slots_[source], plan, make_stamp(1, use), staged.bytes());
  }

  Limits limits_;
  Rng rng_{11};
  GpuStream sending_{kOurs};
  GpuStream merging_{kOurs};
  StepGuard send_guard_{sending_.view(), kLongWait};
  StepGuard merge_guard_{merging_.view(), kLongWait};
  Buffer region_;
  std::vector<SlotView> slots_;
  std::vector<SlotWords> host_region_;
  std::vector<SlotView> host_slots_;
  std::vector<Buffer> partials_;
  Buffer out_{MemoryKind::kCuda, kShape.num_elements() * sizeof(Chunk)};
  Buffer lse_{MemoryKind::kCuda, kTokens* kHeads * sizeof(float)};
  Transfers sends_;
  Merge merge_;
  PartialSource host_sources_[kSources];
};

TEST_F(CudaP2pGpu, MergesAsTheHostDoes) {
  for (const uint32_t lines_bytes : {0U, 512U << 10}) {
    MergeCase merging({.lines_bytes = lines_bytes});
    const Status status = merging.run();
    ASSERT_TRUE(status.ok()) << status.to_string();
    merging.expect_as_on_the_host();
  }
}

}  // namespace
}  // namespace lamina::cuda_p2p::testing

// Or the process of the other GPU.
int main(int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == lamina::measure::kPeerArgument) return lamina::measure::run_peer();
  if (first == lamina::cuda_p2p::testing::kStressPeerArgument) {
    return lamina::cuda_p2p::testing::run_stress_peer();
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
