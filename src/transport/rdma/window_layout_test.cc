#include "transport/rdma/window_layout.h"

#include <gtest/gtest.h>

#include <array>

namespace lamina::rdma {
namespace {

constexpr std::array<uint32_t, 3> kToListener = {1, 128, 5000};
constexpr std::array<uint32_t, 2> kToConnector = {129, 64};

TEST(WindowLayout, PlacesHoldWhatTheyAreForAndNoOthers) {
  const WindowLayout layout(kToListener, kToConnector);
  size_t end = 0;
  const auto expect_next = [&](size_t offset, uint32_t capacity) {
    EXPECT_GE(offset, end);
    EXPECT_EQ(offset % alignof(MessageHeader), 0U);
    end = offset + sizeof(MessageHeader) + capacity;
  };
  for (size_t i = 0; i < kToListener.size(); ++i) {
    expect_next(layout.offset(/*to_listener=*/true, i), kToListener[i]);
  }
  for (size_t i = 0; i < kToConnector.size(); ++i) {
    expect_next(layout.offset(/*to_listener=*/false, i), kToConnector[i]);
  }
  EXPECT_LE(end, layout.size_bytes());
  EXPECT_EQ(layout.size_bytes() % kWindowAlignment, 0U);
}

TEST(WindowLayout, BothSidesHaveSignalsForTheSideWithMoreSlots) {
  EXPECT_EQ(WindowLayout(kToListener, kToConnector).max_slots(), kToListener.size());
  EXPECT_EQ(WindowLayout(kToConnector, kToListener).max_slots(), kToListener.size());
}

}  // namespace
}  // namespace lamina::rdma
