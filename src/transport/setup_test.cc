// Setting endpoints up: who is refused, and with what.
#include <thread>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/endpoint_testing.h"

namespace lamina {
namespace {

using transport_testing::complete_pair;
using transport_testing::connector_config;
using transport_testing::listener_config;
using transport_testing::Pair;
using transport_testing::patience;
using transport_testing::put_filled;
using transport_testing::Slots;
using transport_testing::thrown_code;

class Setup : public testing::TestWithParam<TransportKind> {
 protected:
  // What completing the connector with `blob` ends in.
  StatusCode completing(const std::string& blob) const {
    const auto connector = prepare_endpoint(connector_config(GetParam(), slots_));
    return thrown_code([&] { connector->complete(blob, Deadline::after(wait_)); });
  }

  Slots slots_{.to_listener = {64, 0}, .to_connector = {128}};
  Duration wait_ = std::chrono::milliseconds(3);
};

INSTANTIATE_TEST_SUITE_P(Backends,
                         Setup,
                         testing::Values(TransportKind::kLoopback,
                                         TransportKind::kShm,
                                         TransportKind::kTcp,
                                         TransportKind::kCudaP2p),
                         [](const auto& tested) {
                           return std::string(transport_name(tested.param));
                         });

TEST_P(Setup, AnotherEpochIsRefused) {
  const auto stale = prepare_endpoint(listener_config(GetParam(), slots_, 7));
  EXPECT_EQ(completing(stale->blob()), StatusCode::kUnauthenticated);
}

TEST_P(Setup, AnotherPeerIsRefused) {
  EndpointConfig stranger = listener_config(GetParam(), slots_);
  stranger.self.id = 77;
  EXPECT_EQ(completing(prepare_endpoint(stranger)->blob()), StatusCode::kUnauthenticated);
  EndpointConfig for_another = listener_config(GetParam(), slots_);
  for_another.peer.id = 77;
  EXPECT_EQ(completing(prepare_endpoint(for_another)->blob()), StatusCode::kUnauthenticated);
}

TEST_P(Setup, OtherSlotsAreRefused) {
  Slots others = slots_;
  others.to_listener[1] = 1;
  EXPECT_EQ(completing(prepare_endpoint(listener_config(GetParam(), others))->blob()),
            StatusCode::kInvalidArgument);
  others = slots_;
  others.to_connector.push_back(4);
  EXPECT_EQ(completing(prepare_endpoint(listener_config(GetParam(), others))->blob()),
            StatusCode::kInvalidArgument);
}

TEST_P(Setup, AnotherBackendIsRefused) {
  const auto kind = GetParam() == TransportKind::kShm ? TransportKind::kTcp : TransportKind::kShm;
  EXPECT_EQ(completing(prepare_endpoint(listener_config(kind, slots_))->blob()),
            StatusCode::kInvalidArgument);
}

TEST_P(Setup, AnyDamageToABlobIsAnError) {
  const auto listener = prepare_endpoint(listener_config(GetParam(), slots_));
  const std::string blob = listener->blob();
  for (size_t i = 0; i < blob.size(); ++i) {
    std::string damaged = blob;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_NE(completing(damaged), StatusCode::kOk) << "byte " << i << " of '" << blob << "'";
  }
  for (size_t size = 0; size < blob.size(); size += 3) {
    EXPECT_NE(completing(blob.substr(0, size)), StatusCode::kOk) << size;
  }
  EXPECT_NE(completing(blob + " "), StatusCode::kOk);
  EXPECT_NE(completing(std::string(1 << 20, 'x')), StatusCode::kOk);
}

TEST_P(Setup, AWrongTokenIsRefusedAndTheRightOneStillGetsIn) {
  const auto listener = prepare_endpoint(listener_config(GetParam(), slots_));
  const auto connector = prepare_endpoint(connector_config(GetParam(), slots_));
  const auto intruder = prepare_endpoint(connector_config(GetParam(), slots_));
  Blob blob = decode_blob(listener->blob(), connector_config(GetParam(), slots_));
  blob.token = random_token();
  std::unique_ptr<Endpoint> listening_end;
  std::thread listening([&] { listening_end = listener->complete(connector->blob(), patience()); });
  EXPECT_EQ(thrown_code([&] { intruder->complete(encode_blob(blob), patience()); }),
            StatusCode::kUnauthenticated);
  const auto connecting_end = connector->complete(listener->blob(), patience());
  listening.join();
  put_filled(*connecting_end, 0, 64, 1);
  EXPECT_TRUE(listening_end->wait(0, 1, patience(), {}).ok());
}

TEST_P(Setup, ImpossibleSlotsAreRefused) {
  EndpointConfig config = listener_config(GetParam(), slots_);
  config.receive_slots = {SIZE_MAX, SIZE_MAX};
  EXPECT_EQ(thrown_code([&] { prepare_endpoint(config); }), StatusCode::kInvalidArgument);
  config.receive_slots.assign(100'000, 1);
  EXPECT_EQ(thrown_code([&] { prepare_endpoint(config); }), StatusCode::kInvalidArgument);
}

TEST_P(Setup, ManyEndpointsLiveSideBySide) {
  std::vector<Pair> pairs;
  for (uint64_t epoch = 1; epoch <= 8; ++epoch) {
    const auto listener = prepare_endpoint(listener_config(GetParam(), slots_, epoch));
    const auto connector = prepare_endpoint(connector_config(GetParam(), slots_, epoch));
    pairs.push_back(complete_pair(*listener, *connector));
  }
  for (uint64_t i = 0; i < pairs.size(); ++i) put_filled(*pairs[i].connector, 0, 64, i + 1);
  for (uint64_t i = 0; i < pairs.size(); ++i) {
    EXPECT_TRUE(pairs[i].listener->wait(0, i + 1, patience(), {}).ok());
    EXPECT_EQ(pairs[i].listener->received_seq(0), i + 1);
  }
}

// Whatever this build and this machine lack, it is said.
TEST(SetupOfRdma, WhatIsMissingIsNamed) {
  try {
    prepare_endpoint(connector_config(TransportKind::kRdma, {.to_listener = {64}}));
    FAIL() << "a CPU has no NIC";
  } catch (const Error& error) {
    EXPECT_NE(error.status().message().find("--transport rdma"), std::string::npos)
        << error.status().to_string();
  }
}

}  // namespace
}  // namespace lamina
