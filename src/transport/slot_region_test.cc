#include "transport/slot_region.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "transport/region_endpoint.h"
#include "transport/slot_memory.h"

namespace lamina {
namespace {

const std::vector<size_t> kSlots = {100, 0, 64};

// Memory that a test shares with an endpoint, to play its peer by hand.
class TestMemory final : public RegionMemory {
 public:
  TestMemory() : bytes_(std::vector<size_t>{SlotRegion::total_bytes(kSlots)}) {}
  [[nodiscard]] std::byte* data() const override { return bytes_.payload(0).data(); }
  void revoke() override {}
  [[nodiscard]] bool owner_lives() const override { return lives; }

  std::atomic<bool> lives{true};

 private:
  SlotMemory bytes_;
};

// An endpoint whose peer is the test itself.
class HandMadePeer : public testing::Test {
 protected:
  HandMadePeer() {
    auto own = std::make_unique<TestMemory>();
    auto peers = std::make_unique<TestMemory>();
    peer_memory_ = peers.get();
    region_ = std::make_unique<SlotRegion>(own->data(), kSlots);
    region_->initialise(random_token());
    EndpointConfig config;
    config.receive_slots = config.send_slots = kSlots;
    endpoint_ = std::make_unique<RegionEndpoint>(config, std::move(own), std::move(peers));
  }
  void write(SlotIdx slot, uint64_t size_bytes, uint64_t seq) {
    region_->slot(slot).size_bytes = size_bytes;
    region_->slot(slot).seq = seq;
    region_->ring(slot);
  }

  TestMemory* peer_memory_ = nullptr;
  std::unique_ptr<SlotRegion> region_;
  std::unique_ptr<Endpoint> endpoint_;
};

TEST_F(HandMadePeer, AMessageTooLongForItsSlotBreaksTheEndpoint) {
  write(0, 100, 1);
  EXPECT_EQ(endpoint_->poll(0, 1), PollResult::kReady);
  EXPECT_EQ(endpoint_->payload(0).size(), 100U);
  write(1, 1, 1);
  EXPECT_EQ(endpoint_->poll(1, 1), PollResult::kDown);
  EXPECT_EQ(endpoint_->poll(0, 1), PollResult::kDown);
  EXPECT_TRUE(endpoint_->payload(0).empty());
}

TEST_F(HandMadePeer, AnEnormousLengthBreaksTheEndpoint) {
  write(2, ~uint64_t{0}, 1);
  EXPECT_EQ(endpoint_->wait(2, 1, Deadline::expired(), {}).code(), StatusCode::kUnavailable);
}

TEST_F(HandMadePeer, AShrinkingSequenceNumberBreaksTheEndpoint) {
  write(0, 4, 7);
  EXPECT_EQ(endpoint_->poll(0, 7), PollResult::kReady);
  write(0, 4, 6);
  EXPECT_EQ(endpoint_->poll(0, 8), PollResult::kDown);
}

TEST_F(HandMadePeer, ALengthChangedAfterwardsIsNotReadAgain) {
  write(0, 4, 1);
  ASSERT_EQ(endpoint_->poll(0, 1), PollResult::kReady);
  region_->slot(0).size_bytes = ~uint64_t{0};
  EXPECT_EQ(endpoint_->poll(0, 1), PollResult::kReady);
  EXPECT_EQ(endpoint_->payload(0).size(), 4U);
}

TEST_F(HandMadePeer, ADeadOwnerIsNoticedInAWait) {
  peer_memory_->lives = false;
  const Deadline deadline = Deadline::after(std::chrono::seconds(60));
  EXPECT_EQ(endpoint_->wait(0, 1, deadline, {}).code(), StatusCode::kUnavailable);
}

TEST_F(HandMadePeer, ScribbledWaitStateOnlyCostsTime) {
  region_->slot(0).sleepers = 77;
  std::thread scribbler([&] {
    for (int i = 0; i < 100; ++i) region_->ring_all();
    write(0, 4, 1);
  });
  EXPECT_TRUE(endpoint_->wait(0, 1, Deadline::after(std::chrono::seconds(60)), {}).ok());
  scribbler.join();
}

TEST(SlotRegion, ValidatesWhatItMaps) {
  SlotMemory memory(std::vector<size_t>{SlotRegion::total_bytes(kSlots)});
  const SlotRegion region(memory.payload(0).data(), kSlots);
  const Token token = random_token();
  EXPECT_THROW(region.validate(token), Error);
  SlotRegion(memory.payload(0).data(), kSlots).initialise(token);
  EXPECT_NO_THROW(region.validate(token));
  EXPECT_THROW(region.validate(random_token()), Error);
  region.header().version = 2;
  EXPECT_THROW(region.validate(token), Error);
  region.header().version = kRegionVersion;
  region.header().num_slots = 2;
  EXPECT_THROW(region.validate(token), Error);
}

TEST(SlotRegion, PayloadsStandOnCacheLinesInsideTheRegion) {
  SlotMemory memory(std::vector<size_t>{SlotRegion::total_bytes(kSlots)});
  const SlotRegion region(memory.payload(0).data(), kSlots);
  const std::byte* end = memory.payload(0).data() + memory.payload(0).size();
  const std::byte* last_end = nullptr;
  for (SlotIdx slot = 0; slot < kSlots.size(); ++slot) {
    const auto payload = region.payload(slot);
    EXPECT_EQ(payload.size(), kSlots[slot]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(payload.data()) % 64, 0U);
    EXPECT_GE(payload.data(), last_end);
    last_end = payload.data() + payload.size();
  }
  EXPECT_LE(last_end, end);
}

}  // namespace
}  // namespace lamina
