#include "wire/slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace lamina::wire {
namespace {

constexpr SlotGeometry kGeometry{.max_tokens = 128,
                                 .max_sequences = 4,
                                 .num_blocks = 64,
                                 .num_heads = 6,
                                 .num_kv_heads = 2,
                                 .head_dim = 64,
                                 .value_dim = 64,
                                 .dtype = DType::kBF16,
                                 .out_dtype = DType::kF32};

TEST(Slots, HoldTheLargestMessageOfTheirKind) {
  const std::vector<size_t> slots = attention_worker_slots(kGeometry);
  ASSERT_EQ(slots.size(), 5U);
  AttentionPlan plan;
  plan.sequences.resize(4);
  plan.released_slots.resize(4);
  plan.new_blocks.resize(64);
  EXPECT_EQ(slots[slot_of(MessageKind::kPlan, 0, 0)], encoded_bytes(plan));
  EXPECT_EQ(slots[slot_of(MessageKind::kQ, 0, 0)], sizeof(MessageHeader) + 128 * 6 * 64 * 2);
  EXPECT_EQ(slots[slot_of(MessageKind::kKv, 0, 0)], sizeof(MessageHeader) + 128 * 2 * 64 * 2 * 2);
  EXPECT_EQ(model_worker_slots(kGeometry),
            (std::vector<size_t>(2, sizeof(MessageHeader) + 128 * 6 * 64 * 4)));
}

TEST(Slots, AlternateByLayerAndNeverCollide) {
  std::vector<uint32_t> used;
  for (const uint32_t layer : {0U, 1U}) {
    used.push_back(slot_of(MessageKind::kQ, 0, layer));
    used.push_back(slot_of(MessageKind::kKv, 0, layer));
    EXPECT_EQ(slot_of(MessageKind::kQ, 0, layer), slot_of(MessageKind::kQ, 0, layer + 2));
    EXPECT_EQ(slot_of(MessageKind::kOut, 0, layer), layer);
  }
  used.push_back(slot_of(MessageKind::kPlan, 0, 0));
  std::sort(used.begin(), used.end());
  EXPECT_EQ(used, (std::vector<uint32_t>{0, 1, 2, 3, 4}));
}

TEST(Slots, DevicesHaveOneForEachTensor) {
  SlotGeometry geometry = kGeometry;
  geometry.num_micro_batches = 2;
  const std::vector<uint32_t> worker = attention_device_slots(geometry);
  ASSERT_EQ(worker.size(), 12U);
  EXPECT_EQ(worker[device_slot_of(DeviceMessage::kQ, 1, 1)], 128U * 6 * 64 * 2);
  EXPECT_EQ(worker[device_slot_of(DeviceMessage::kK, 1, 0)], 128U * 2 * 64 * 2);
  EXPECT_EQ(worker[device_slot_of(DeviceMessage::kV, 0, 3)], 128U * 2 * 64 * 2);
  EXPECT_EQ(model_device_slots(geometry), (std::vector<uint32_t>(4, 128U * 6 * 64 * 4)));
  std::vector<uint32_t> used;
  for (const uint32_t micro_batch : {0U, 1U}) {
    for (const uint32_t layer : {0U, 1U}) {
      for (const auto kind : {DeviceMessage::kQ, DeviceMessage::kK, DeviceMessage::kV}) {
        used.push_back(device_slot_of(kind, micro_batch, layer));
      }
    }
  }
  std::sort(used.begin(), used.end());
  EXPECT_EQ(std::unique(used.begin(), used.end()) - used.begin(), 12);
  EXPECT_EQ(device_slot_of(DeviceMessage::kOut, 1, 1), 3U);
}

TEST(Slots, AMessageBetweenDevicesHas32BitsOfBytes) {
  SlotGeometry geometry = kGeometry;
  geometry.max_tokens = 1U << 24;
  EXPECT_THROW(static_cast<void>(attention_device_slots(geometry)), Error);
}

TEST(Slots, MicroBatchesHaveTheirOwn) {
  SlotGeometry geometry = kGeometry;
  geometry.num_micro_batches = 3;
  const std::vector<size_t> one = attention_worker_slots(kGeometry);
  const std::vector<size_t> three = attention_worker_slots(geometry);
  ASSERT_EQ(three.size(), 15U);
  EXPECT_EQ(three[slot_of(MessageKind::kKv, 2, 1)], one[slot_of(MessageKind::kKv, 0, 1)]);
  EXPECT_EQ(slot_of(MessageKind::kPlan, 1, 0), 5U);
  EXPECT_EQ(slot_of(MessageKind::kOut, 2, 1), 5U);
  EXPECT_EQ(model_worker_slots(geometry).size(), 6U);
}

// Where the worker may lack blocks an output is f32, with a log-sum-exp for each head.
TEST(Slots, HoldPartials) {
  SlotGeometry geometry = kGeometry;
  geometry.out_dtype = DType::kBF16;
  EXPECT_EQ(model_worker_slots(geometry)[0], sizeof(MessageHeader) + 128 * 6 * 64 * 2);
  EXPECT_EQ(model_device_slots(geometry)[0], 128U * 6 * 64 * 2);
  geometry.may_be_partial = true;
  EXPECT_EQ(model_worker_slots(geometry)[0], sizeof(MessageHeader) + 128 * 6 * 65 * 4);
  EXPECT_EQ(model_device_slots(geometry)[0], 128U * 6 * 65 * 4);
}

TEST(Slots, SequenceNumbersGrowWithStepAndLayer) {
  uint64_t last = 0;
  for (uint64_t step = 1; step < 5; ++step) {
    for (uint32_t layer = 0; layer < 3; ++layer) {
      EXPECT_GT(sequence_number(step, layer, 3), last);
      last = sequence_number(step, layer, 3);
    }
  }
}

TEST(Slots, AnImpossibleGeometryIsAnError) {
  SlotGeometry geometry = kGeometry;
  geometry.max_tokens = std::numeric_limits<uint32_t>::max();
  geometry.num_heads = std::numeric_limits<uint32_t>::max();
  EXPECT_THROW(static_cast<void>(attention_worker_slots(geometry)), Error);
  EXPECT_THROW(static_cast<void>(model_worker_slots(geometry)), Error);
}

}  // namespace
}  // namespace lamina::wire
