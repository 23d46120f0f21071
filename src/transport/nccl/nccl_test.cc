// The nccl backend without GPUs: a stand-in for NCCL between two threads, endpoints over real
// sockets. What is refused, messages with and without gaps, and how waits end. Between GPUs:
// nccl_gpu_test.cc.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <future>
#include <thread>

#include "transport/device_link.h"
#include "transport/endpoint_testing.h"
#include "transport/nccl/fake_library.h"
#include "transport/nccl/nccl_endpoint.h"
#include "transport/nccl/step_count.h"

namespace lamina::nccl {
namespace {

using testing::fake_library;
using transport_testing::connector_config;
using transport_testing::fill;
using transport_testing::is_filled;
using transport_testing::listener_config;
using transport_testing::Pair;
using transport_testing::patience;
using transport_testing::Slots;
using transport_testing::thrown_code;

constexpr uint32_t kSlotBytes = 4096;
constexpr size_t kNumChannels = 2;
constexpr size_t kRowBytes = 64;
constexpr size_t kNumRows = 5;
const Slots kHostSlots{.to_listener = {64}, .to_connector = {64}};
const StreamView kCpu(Device{}, nullptr);

EndpointConfig with_channels(EndpointConfig config) {
  config.num_device_channels = kNumChannels;
  config.device_receive_slots = std::vector<uint32_t>(2 * kNumChannels, kSlotBytes);
  config.device_send_slots = config.device_receive_slots;
  return config;
}
EndpointConfig listening() {
  return with_channels(listener_config(TransportKind::kNccl, kHostSlots));
}
EndpointConfig connecting() {
  return with_channels(connector_config(TransportKind::kNccl, kHostSlots));
}

Pair connect(const Library& listeners = fake_library()) {
  const auto listener = prepare_nccl(listening(), listeners);
  const auto connector = prepare_nccl(connecting(), fake_library());
  return transport_testing::complete_pair(*listener, *connector);
}

std::unique_ptr<DeviceChannel> open(Endpoint& endpoint,
                                    size_t idx,
                                    Duration max_wait = transport_testing::kPatience) {
  DeviceLink* const link = endpoint.device_link();
  return link->open_channel({&link, 1}, {.idx = idx, .stream = kCpu, .max_wait = max_wait});
}

// A matrix whose rows are columns of a wider one.
class Matrix {
 public:
  explicit Matrix(size_t stride_bytes) : stride_(stride_bytes), data_(kNumRows * stride_bytes) {}

  [[nodiscard]] DeviceTransfer message(SlotIdx slot) {
    return {.slot = slot,
            .rows = {.data = data_.data(),
                     .num_rows = kNumRows,
                     .row_bytes = kRowBytes,
                     .stride_bytes = stride_},
            .use = 1};
  }
  void fill_rows(uint64_t seed) {
    for (size_t i = 0; i < kNumRows; ++i) fill(row(i), seed + i);
  }
  void expect_rows(uint64_t seed) {
    for (size_t i = 0; i < kNumRows; ++i) EXPECT_TRUE(is_filled(row(i), seed + i)) << i;
  }
  // Nothing was written between rows.
  void expect_gaps_are_zero() {
    for (size_t i = 0; i < kNumRows; ++i) {
      for (size_t byte = kRowBytes; byte < stride_; ++byte) {
        EXPECT_EQ(data_[i * stride_ + byte], std::byte{0});
      }
    }
  }

 private:
  std::span<std::byte> row(size_t idx) {
    return std::span(data_).subspan(idx * stride_, kRowBytes);
  }
  size_t stride_;
  std::vector<std::byte> data_;
};

TEST(Nccl, NeedsAGpu) {
  EXPECT_EQ(thrown_code([] { prepare_endpoint(listening()); }), StatusCode::kInvalidArgument);
}

TEST(Nccl, RefusesSlotsThatChannelsCannotShare) {
  EndpointConfig config = listening();
  config.device_send_slots.pop_back();
  EXPECT_EQ(thrown_code([&] { prepare_nccl(config, fake_library()); }),
            StatusCode::kInvalidArgument);
}

// What completing the connector ends in, where the listener is one of those.
StatusCode code_with(const EndpointConfig& listeners, const Library& library) {
  const auto listener = prepare_nccl(listeners, library);
  const auto connector = prepare_nccl(connecting(), fake_library());
  std::thread other(
      [&] { thrown_code([&] { listener->complete(connector->blob(), patience()); }); });
  const StatusCode code = thrown_code([&] { connector->complete(listener->blob(), patience()); });
  other.join();
  return code;
}

TEST(Nccl, RefusesAnotherVersionOfNccl) {
  EXPECT_EQ(code_with(listening(), testing::newer_fake_library()), StatusCode::kInvalidArgument);
}

TEST(Nccl, RefusesOtherSlotsOfDevices) {
  EndpointConfig others = listening();
  others.device_send_slots[1] += 16;
  EXPECT_EQ(code_with(others, fake_library()), StatusCode::kInvalidArgument);
  others = listening();
  others.num_device_channels = 1;
  EXPECT_EQ(code_with(others, fake_library()), StatusCode::kInvalidArgument);
}

TEST(Nccl, AnAbsentPeerIsAnError) {
  const auto listener = prepare_nccl(listening(), fake_library());
  const auto connector = prepare_nccl(connecting(), fake_library());
  EXPECT_EQ(thrown_code([&] {
              listener->complete(connector->blob(), Deadline::after(std::chrono::milliseconds(20)));
            }),
            StatusCode::kDeadlineExceeded);
}

TEST(Nccl, HostsTalkBesideTheLink) {
  const Pair pair = connect();
  transport_testing::put_filled(*pair.connector, 0, 64, 1);
  EXPECT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
}

TEST(Nccl, ChannelsCarryRowsWithAndWithoutGaps) {
  const Pair pair = connect();
  for (size_t idx = 0; idx < kNumChannels; ++idx) {
    const auto from = open(*pair.connector, idx);
    const auto to = open(*pair.listener, idx);
    const auto slot = static_cast<SlotIdx>(2 * idx);
    Matrix wide(3 * kRowBytes);
    Matrix dense(kRowBytes);
    Matrix received(kRowBytes);
    Matrix received_wide(2 * kRowBytes);
    wide.fill_rows(1);
    dense.fill_rows(100);
    ASSERT_TRUE(from->send(std::array{wide.message(slot), dense.message(slot + 1)}).ok());
    ASSERT_TRUE(
        to->receive(std::array{received.message(slot), received_wide.message(slot + 1)}).ok());
    received.expect_rows(1);
    received_wide.expect_rows(100);
    received_wide.expect_gaps_are_zero();
    EXPECT_TRUE(from->end_step(1).ok());
    EXPECT_TRUE(to->end_step(1).ok());
  }
}

// From a channel over both, as a model worker has them.
TEST(Nccl, AMessageGoesToItsOwnLink) {
  const Pair first = connect();
  const Pair second = connect();
  const std::array links = {first.connector->device_link(), second.connector->device_link()};
  const auto both = links.front()->open_channel(
      links, {.idx = 0, .stream = kCpu, .max_wait = transport_testing::kPatience});
  Matrix to_first(2 * kRowBytes);
  Matrix to_second(2 * kRowBytes);
  to_first.fill_rows(1);
  to_second.fill_rows(50);
  std::array messages = {to_second.message(0), to_first.message(0)};
  messages[0].link_idx = 1;
  ASSERT_TRUE(both->send(messages).ok());
  Matrix received(kRowBytes);
  ASSERT_TRUE(open(*first.listener, 0)->receive(std::array{received.message(0)}).ok());
  received.expect_rows(1);
  ASSERT_TRUE(open(*second.listener, 0)->receive(std::array{received.message(0)}).ok());
  received.expect_rows(50);
}

TEST(Nccl, WhatDoesNotFitASlotIsRefused) {
  const Pair pair = connect();
  const auto channel = open(*pair.connector, 0);
  Matrix matrix(kRowBytes);
  DeviceTransfer large = matrix.message(0);
  large.rows.num_rows = kSlotBytes / kRowBytes + 1;
  EXPECT_EQ(channel->send(std::array{large}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(channel->send(std::array{matrix.message(2)}).code(), StatusCode::kInvalidArgument);
}

// A wait of the other side's that begins before or after: each ends.
void expect_end(Pair& pair, const std::function<void()>& end_of_peer, StatusCode expected) {
  const auto channel = open(*pair.connector, 0);
  const auto waiting = std::async(std::launch::async, [&] {
    Matrix received(kRowBytes);
    return channel->receive(std::array{received.message(0)}).code();
  });
  end_of_peer();
  waiting.wait();
  EXPECT_EQ(channel->status().code(), expected) << channel->status().to_string();
  EXPECT_TRUE(channel->is_aborted());
  Matrix sent(kRowBytes);
  EXPECT_FALSE(channel->send(std::array{sent.message(0)}).ok());
}

TEST(Nccl, APeersEndEndsAWait) {
  Pair pair = connect();
  expect_end(pair, [&] { pair.listener.reset(); }, StatusCode::kUnavailable);
}

TEST(Nccl, AbortingEitherEndpointEndsAWait) {
  Pair pair = connect();
  expect_end(pair, [&] { pair.listener->abort(); }, StatusCode::kUnavailable);
  Pair another = connect();
  expect_end(another, [&] { another.connector->abort(); }, StatusCode::kUnavailable);
}

TEST(Nccl, AStepThatLastsTooLongEnds) {
  const Pair pair = connect();
  const auto channel = open(*pair.connector, 0, std::chrono::milliseconds(1));
  Matrix received(kRowBytes);
  EXPECT_FALSE(channel->receive(std::array{received.message(0)}).ok());
  EXPECT_EQ(channel->status().code(), StatusCode::kDeadlineExceeded);
}

TEST(Nccl, ABrokenNetworkEndsAChannel) {
  const Pair pair = connect();
  const auto channel = open(*pair.connector, 0);
  testing::break_fake_network(true);
  Matrix sent(kRowBytes);
  EXPECT_EQ(channel->send(std::array{sent.message(0)}).code(), StatusCode::kUnavailable);
  const Deadline deadline = patience();
  while (channel->status().ok() && !deadline.has_passed()) std::this_thread::yield();
  testing::break_fake_network(false);
  EXPECT_EQ(channel->status().code(), StatusCode::kUnavailable);
}

TEST(Nccl, NoCommunicatorIsLeft) {
  const int before = testing::num_fake_communicators();
  {
    const Pair pair = connect();
    EXPECT_EQ(testing::num_fake_communicators(), before + 2 * static_cast<int>(kNumChannels));
    const auto channel = open(*pair.connector, 1);
  }
  EXPECT_EQ(testing::num_fake_communicators(), before);
}

TEST(Nccl, AStepIsLateWhenItLastsNotWhenMany) {
  const Duration limit = std::chrono::seconds(10);
  StepCount steps(kCpu, limit);
  TimePoint now{};
  EXPECT_FALSE(steps.is_late(now));
  EXPECT_FALSE(steps.is_late(now += 2 * limit));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(steps.begin().ok());
    EXPECT_FALSE(steps.is_late(now += limit));
    EXPECT_FALSE(steps.is_late(now += limit));
    ASSERT_TRUE(steps.end().ok());
  }
  ASSERT_TRUE(steps.begin().ok());
  EXPECT_FALSE(steps.is_late(now));
  EXPECT_TRUE(steps.is_late(now + limit + Duration(1)));
}

}  // namespace
}  // namespace lamina::nccl
