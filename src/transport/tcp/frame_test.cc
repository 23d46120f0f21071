#include "transport/tcp/frame.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/rng.h"

namespace lamina {
namespace {

const std::vector<size_t> kCapacities = {0, 10, 300};

// Feeds a stream in pieces of at most `piece` bytes; the frames that came out, or the error.
Result<std::vector<FrameHeader>> feed(FrameReceiver& receiver,
                                      std::span<const std::byte> stream,
                                      size_t piece) {
  std::vector<FrameHeader> frames;
  while (!stream.empty()) {
    const std::span<std::byte> want = receiver.want();
    EXPECT_FALSE(want.empty());
    const size_t count = std::min({want.size(), stream.size(), piece});
    std::memcpy(want.data(), stream.data(), count);
    stream = stream.subspan(count);
    LAMINA_ASSIGN_OR_RETURN(const std::optional<FrameHeader> frame, receiver.advance(count));
    if (frame) frames.push_back(*frame);
  }
  return frames;
}

void append_frame(std::vector<std::byte>& stream, const FrameHeader& header, std::byte fill) {
  const auto bytes = std::as_bytes(std::span(&header, 1));
  stream.insert(stream.end(), bytes.begin(), bytes.end());
  stream.insert(stream.end(), header.payload_bytes, fill);
}

TEST(FrameReceiver, FindsFramesHoweverTheStreamIsCut) {
  std::vector<std::byte> stream;
  append_frame(stream, {.slot = 2, .seq = 1, .payload_bytes = 300}, std::byte{1});
  append_frame(stream, {.slot = 0, .seq = 1, .payload_bytes = 0}, std::byte{2});
  append_frame(stream, {.slot = 1, .seq = 9, .payload_bytes = 3}, std::byte{3});
  append_frame(stream, {.slot = 2, .seq = 2, .payload_bytes = 0}, std::byte{4});
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    FrameReceiver receiver(kCapacities);
    const auto frames = feed(receiver, stream, piece);
    ASSERT_TRUE(frames.ok());
    ASSERT_EQ(frames->size(), 4U) << piece;
    EXPECT_EQ((*frames)[2].slot, 1U);
    EXPECT_EQ((*frames)[2].seq, 9U);
    EXPECT_EQ(receiver.payload(2)[299], std::byte{1});
    EXPECT_EQ(receiver.payload(1)[2], std::byte{3});
    EXPECT_EQ(receiver.payload(1)[3], std::byte{0});
    EXPECT_FALSE(receiver.is_mid_frame());
  }
}

TEST(FrameReceiver, KnowsWhenAStreamEndsInsideAFrame) {
  std::vector<std::byte> stream;
  append_frame(stream, {.slot = 1, .seq = 1, .payload_bytes = 10}, std::byte{1});
  for (size_t size = 1; size < stream.size(); ++size) {
    FrameReceiver receiver(kCapacities);
    ASSERT_TRUE(feed(receiver, std::span(stream).first(size), 1000).ok());
    EXPECT_TRUE(receiver.is_mid_frame()) << size;
  }
}

TEST(FrameReceiver, RefusesLies) {
  const std::vector<FrameHeader> lies = {
      {.magic = 1, .slot = 1, .seq = 1, .payload_bytes = 0},
      {.slot = 3, .seq = 1, .payload_bytes = 0},
      {.slot = 0, .seq = 1, .payload_bytes = 1},
      {.slot = 1, .seq = 1, .payload_bytes = 11},
      {.slot = 1, .seq = 1, .payload_bytes = ~uint64_t{0}},
      {.slot = 1, .seq = 0, .payload_bytes = 0},
  };
  for (const FrameHeader& lie : lies) {
    FrameReceiver receiver(kCapacities);
    const auto bytes = std::as_bytes(std::span(&lie, 1));
    EXPECT_EQ(feed(receiver, bytes, 1000).status().code(), StatusCode::kDataLoss);
  }
}

TEST(FrameReceiver, RefusesSequenceNumbersThatDoNotGrow) {
  std::vector<std::byte> stream;
  append_frame(stream, {.slot = 1, .seq = 5, .payload_bytes = 0}, std::byte{0});
  append_frame(stream, {.slot = 2, .seq = 5, .payload_bytes = 0}, std::byte{0});
  FrameReceiver receiver(kCapacities);
  ASSERT_TRUE(feed(receiver, stream, 1000).ok());
  stream.clear();
  append_frame(stream, {.slot = 1, .seq = 5, .payload_bytes = 0}, std::byte{0});
  EXPECT_FALSE(feed(receiver, stream, 1000).ok());
}

TEST(FrameReceiver, SurvivesNoise) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Rng rng(seed);
    std::vector<std::byte> stream;
    for (uint64_t seq = 1; seq < 20; ++seq) {
      const auto slot = static_cast<uint32_t>(rng.next_below(3));
      append_frame(
          stream,
          {.slot = slot, .seq = seq, .payload_bytes = rng.next_below(kCapacities[slot] + 1)},
          std::byte{7});
    }
    stream[rng.next_below(stream.size())] ^= static_cast<std::byte>(1 + rng.next_below(255));
    FrameReceiver receiver(kCapacities);
    // Damage in a payload goes unseen here; damage in a header must not lead out of bounds.
    const auto frames = feed(receiver, stream, 1 + rng.next_below(100));
    if (frames.ok()) {
      EXPECT_LE(frames->size(), 19U) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace lamina
