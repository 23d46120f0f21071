// Setting links up and what they are refused for, with a stand-in for NCCL's library: its kernels
// need a NIC.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/error.h"
#include "transport/device_link.h"
#include "transport/endpoint_testing.h"
#include "transport/nccl/fake_library.h"
#include "transport/rdma/rdma_channel.h"
#include "transport/rdma/rdma_endpoint.h"

namespace lamina::rdma {
namespace {

using ::testing::HasSubstr;
using transport_testing::complete_pair;
using transport_testing::Pair;
using transport_testing::patience;
using transport_testing::Slots;

constexpr size_t kNumChannels = 2;
constexpr uint32_t kSlotBytes = 4096;
const Slots kHostSlots{.to_listener = {64}, .to_connector = {64}};

// What the fake machine has, and how much of its memory is in use.
struct Machine {
  ncclGinType_t gin = NCCL_GIN_TYPE_GDAKI;
  ncclGinType_t railed_gin = NCCL_GIN_TYPE_GDAKI;
  bool has_device_api = true;
  ncclResult_t device_communicators = ncclSuccess;
};
Machine machine;
std::atomic<int> num_allocations{0};
std::atomic<int> num_signals{0};

ncclResult_t query_properties(ncclComm_t /*comm*/, ncclCommProperties* found) {
  found->ginType = machine.gin;
  found->railedGinType = machine.railed_gin;
  found->deviceApiSupport = machine.has_device_api;
  return ncclSuccess;
}

ncclResult_t allocate(void** data, size_t size_bytes) {
  *data = std::aligned_alloc(kWindowAlignment, size_bytes);
  ++num_allocations;
  return ncclSuccess;
}

ncclResult_t release(void* data) {
  std::free(data);
  --num_allocations;
  return ncclSuccess;
}

ncclResult_t register_window(
    ncclComm_t /*comm*/, void* data, size_t size_bytes, ncclWindow_t* window, int flags) {
  if (size_bytes % kWindowAlignment != 0 || flags != NCCL_WIN_COLL_SYMMETRIC) {
    return ncclInvalidArgument;
  }
  *window = static_cast<ncclWindow_t>(data);
  return ncclInProgress;
}

ncclResult_t create_device_communicator(ncclComm_t /*comm*/,
                                        const ncclDevCommRequirements* wanted,
                                        ncclDevComm* made) {
  num_signals = wanted->ginSignalCount;
  made->nRanks = 2;
  return machine.device_communicators;
}

const GinLibrary kGin = {.query_properties = query_properties,
                         .create_device_communicator = create_device_communicator,
                         .register_window = register_window,
                         .allocate = allocate,
                         .release = release};
Libraries fakes() {
  return {.nccl = nccl::testing::fake_library(), .gin = kGin};
}

EndpointConfig with_channels(EndpointConfig config) {
  config.num_device_channels = kNumChannels;
  config.device_receive_slots = std::vector<uint32_t>(2 * kNumChannels, kSlotBytes);
  config.device_send_slots = config.device_receive_slots;
  return config;
}
EndpointConfig listening() {
  return with_channels(transport_testing::listener_config(TransportKind::kRdma, kHostSlots));
}
EndpointConfig connecting() {
  return with_channels(transport_testing::connector_config(TransportKind::kRdma, kHostSlots));
}

Pair connect() {
  const auto listener = prepare_rdma(listening(), fakes());
  const auto connector = prepare_rdma(connecting(), fakes());
  return complete_pair(*listener, *connector);
}

std::unique_ptr<DeviceChannel> open(Endpoint& endpoint) {
  DeviceLink* const link = endpoint.device_link();
  return link->open_channel({&link, 1},
                            {.idx = 1,
                             .stream = StreamView(Device{}, nullptr),
                             .max_wait = transport_testing::kPatience});
}

Status error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.status();
  }
  return {};
}

class Rdma : public ::testing::Test {
 protected:
  void SetUp() override { machine = {}; }
  void TearDown() override {
    machine = {};
    EXPECT_EQ(num_allocations, 0);
    EXPECT_EQ(nccl::testing::num_fake_communicators(), 0);
  }
};

void expect_refused(StatusCode code, const std::string& missing) {
  const auto listener = prepare_rdma(listening(), fakes());
  const auto connector = prepare_rdma(connecting(), fakes());
  Status others;
  std::thread other(
      [&] { others = error_of([&] { listener->complete(connector->blob(), patience()); }); });
  const Status ours = error_of([&] { connector->complete(listener->blob(), patience()); });
  other.join();
  for (const Status& status : {ours, others}) {
    EXPECT_EQ(status.code(), code) << status.to_string();
    EXPECT_THAT(status.message(), HasSubstr(missing));
  }
}

TEST_F(Rdma, NeedsAGpu) {
  const Status status = error_of([] { prepare_endpoint(listening()); });
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("--transport rdma is between GPUs"));
}

// The fake's is that of a toolkit, older than the headers.
TEST_F(Rdma, NeedsALibraryAsNewAsItsHeaders) {
  const Status status = error_of([] { require_version(nccl::testing::fake_library()); });
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(status.message(), HasSubstr("this host's is 2.28.9"));
  EXPECT_TRUE(error_of([] { require_version(nccl::testing::newer_fake_library()); }).ok());
}

TEST_F(Rdma, NeedsNics) {
  machine.gin = machine.railed_gin = NCCL_GIN_TYPE_NONE;
  expect_refused(StatusCode::kUnimplemented, "no RDMA NIC on both sides");
}

TEST_F(Rdma, NeedsNicsThatReachEachOther) {
  machine.gin = NCCL_GIN_TYPE_NONE;
  expect_refused(StatusCode::kUnimplemented, "only reach others of their rail");
}

TEST_F(Rdma, NeedsNcclsDeviceApi) {
  machine.has_device_api = false;
  expect_refused(StatusCode::kUnimplemented, "no device API");
}

TEST_F(Rdma, TellsWhatNcclRefuses) {
  machine.device_communicators = ncclInvalidArgument;
  expect_refused(StatusCode::kUnavailable, "connecting a GPU to a NIC");
}

TEST_F(Rdma, BothSidesHaveWindowsForEachChannel) {
  const Pair pair = connect();
  EXPECT_EQ(num_allocations, 2 * static_cast<int>(kNumChannels));
  EXPECT_EQ(num_signals, 2);
  const auto& window = static_cast<RdmaLink*>(pair.listener->device_link())->window(1);
  const auto& peers = static_cast<RdmaLink*>(pair.connector->device_link())->window(1);
  for (size_t slot = 0; slot < 2; ++slot) {
    EXPECT_EQ(window.inbox(slot).offset, peers.outbox(slot).offset);
    EXPECT_EQ(window.outbox(slot).offset, peers.inbox(slot).offset);
    EXPECT_NE(window.inbox(slot).offset, window.outbox(slot).offset);
  }
  EXPECT_EQ(window.device_communicator()->nRanks, 2);
}

TEST_F(Rdma, HostsTalkBesideTheLink) {
  const Pair pair = connect();
  transport_testing::put_filled(*pair.connector, 0, 64, 1);
  EXPECT_TRUE(pair.listener->wait(0, 1, patience(), {}).ok());
}

// A slot of another channel's, and one that is too small.
TEST_F(Rdma, WhatDoesNotFitASlotIsRefused) {
  const Pair pair = connect();
  const auto channel = open(*pair.connector);
  DeviceTransfer transfer = {.slot = 2, .rows = {.num_rows = 1, .row_bytes = kSlotBytes + 16}};
  EXPECT_EQ(channel->send(std::array{transfer}).code(), StatusCode::kInvalidArgument);
  transfer = {.slot = 0, .rows = {.num_rows = 1, .row_bytes = 16}};
  EXPECT_EQ(channel->receive(std::array{transfer}).code(), StatusCode::kInvalidArgument);
}

TEST_F(Rdma, MessagesMayBeReadInTheirPlaces) {
  const Pair pair = connect();
  const auto channel = open(*pair.connector);
  const auto& window = static_cast<RdmaLink*>(pair.connector->device_link())->window(1);
  EXPECT_EQ(channel->place_of(0, 3, kSlotBytes), window.inbox(1).header + sizeof(MessageHeader));
}

void expect_abort(const DeviceChannel& channel) {
  const Deadline deadline = patience();
  while (!channel.is_aborted() && !deadline.has_passed()) std::this_thread::yield();
  EXPECT_TRUE(channel.is_aborted());
}

TEST_F(Rdma, APeersEndAbortsAChannel) {
  Pair pair = connect();
  const auto channel = open(*pair.connector);
  EXPECT_FALSE(channel->is_aborted());
  pair.listener.reset();
  expect_abort(*channel);
}

TEST_F(Rdma, AFailingNicAbortsAChannel) {
  const Pair pair = connect();
  const auto channel = open(*pair.connector);
  nccl::testing::break_fake_network(true);
  expect_abort(*channel);
  nccl::testing::break_fake_network(false);
}

}  // namespace
}  // namespace lamina::rdma
