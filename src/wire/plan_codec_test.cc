#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "wire/messages.h"
#include "wire/wire_testing.h"

namespace lamina::wire {
namespace {

constexpr PlanLimits kLimits{.max_micro_batches = 4,
                             .max_sequences = 8,
                             .max_tokens = 64,
                             .max_blocks = 32,
                             .max_new_blocks = 40,
                             .has_holes = true};
constexpr uint64_t kEpoch = 5;
// Where things lie in the message of example_plan().
constexpr size_t kFirstEntry = sizeof(MessageHeader);
constexpr size_t kNumPaddedRows = kFirstEntry + 2 * sizeof(SequenceEntry);
constexpr size_t kNumFollowing = kNumPaddedRows + 4;
constexpr size_t kNumReleased = kNumFollowing + 4;
constexpr size_t kFirstReleased = kNumReleased + 4;
constexpr size_t kFirstBlock = kFirstReleased + 4;

AttentionPlan example_plan() {
  return {
      .step = 7,
      .micro_batch = 0,
      .sequences =
          {{.slot = 2, .first_position = 0, .num_tokens = 33, .num_new_blocks = 3, .starts = 1},
           {.slot = 0, .first_position = 16, .num_tokens = 1, .num_new_blocks = 1, .starts = 0}},
      .released_slots = {2},
      .new_blocks = {4, 31, 0, 9},
      .num_padded_rows = 40,
      .num_following = 3};
}

std::vector<std::byte> encode(const AttentionPlan& plan) {
  std::vector<std::byte> message(encoded_bytes(plan));
  encode_plan(plan, kEpoch, message);
  return message;
}

bool same(const AttentionPlan& a, const AttentionPlan& b) {
  return a.step == b.step && a.micro_batch == b.micro_batch &&
         a.sequences.size() == b.sequences.size() &&
         (a.sequences.empty() || std::memcmp(a.sequences.data(),
                                             b.sequences.data(),
                                             a.sequences.size() * sizeof(SequenceEntry)) == 0) &&
         a.released_slots == b.released_slots && a.new_blocks == b.new_blocks &&
         a.num_padded_rows == b.num_padded_rows && a.num_following == b.num_following;
}

// The code after the 32-bit word at `offset` became `value`.
StatusCode code_with(size_t offset, uint32_t value) {
  std::vector<std::byte> message = encode(example_plan());
  std::memcpy(message.data() + offset, &value, sizeof(value));
  AttentionPlan plan;
  return decode_plan(message, kEpoch, kLimits, plan).code();
}

AttentionPlan random_plan(Rng& rng) {
  AttentionPlan plan;
  plan.step = 1 + rng.next_below(1000);
  plan.sequences.resize(rng.next_below(kLimits.max_sequences + 1));
  for (SequenceEntry& entry : plan.sequences) {
    entry = {.slot = static_cast<uint32_t>(rng.next_below(kLimits.max_sequences)),
             .first_position = static_cast<uint32_t>(rng.next_below(100000)),
             .num_tokens = 1 + static_cast<uint32_t>(rng.next_below(8)),
             .num_new_blocks = static_cast<uint32_t>(rng.next_below(5)),
             .starts = static_cast<uint32_t>(rng.next_below(2))};
    for (uint32_t i = 0; i < entry.num_new_blocks; ++i) {
      plan.new_blocks.push_back(static_cast<int32_t>(rng.next_below(kLimits.max_blocks)));
    }
  }
  plan.released_slots.resize(rng.next_below(kLimits.max_sequences + 1));
  for (uint32_t& slot : plan.released_slots) {
    slot = static_cast<uint32_t>(rng.next_below(kLimits.max_sequences));
  }
  if (rng.next_below(2) == 0) plan.num_padded_rows = kLimits.max_tokens;
  plan.num_following = static_cast<uint32_t>(rng.next_below(kLimits.max_micro_batches));
  return plan;
}

TEST(Plan, MatchesItsGoldenBytes) {
  const std::string hex = to_hex(encode(example_plan()));
  EXPECT_EQ(hex, golden("plan.hex", hex));
}

TEST(Plan, RoundTripsIntoReusedVectors) {
  Rng rng(2);
  AttentionPlan decoded;
  for (int round = 0; round < 1000; ++round) {
    const AttentionPlan plan = random_plan(rng);
    const Status status = decode_plan(encode(plan), kEpoch, kLimits, decoded);
    ASSERT_TRUE(status.ok()) << "round " << round << ": " << status.message();
    ASSERT_TRUE(same(plan, decoded)) << "round " << round;
    EXPECT_EQ(decoded.num_tokens(), plan.num_tokens());
  }
}

TEST(Plan, RefusesEveryTruncationAndSurplus) {
  const std::vector<std::byte> whole = encode(example_plan());
  for (size_t size = 0; size <= whole.size() + 4; ++size) {
    std::vector<std::byte> message = whole;
    message.resize(size);
    AttentionPlan plan;
    if (size != whole.size()) {
      EXPECT_EQ(decode_plan(message, kEpoch, kLimits, plan).code(), StatusCode::kDataLoss) << size;
    }
    if (size < sizeof(MessageHeader)) continue;
    // The same with a header that agrees with the length: the content must not.
    const uint64_t payload_bytes = size - sizeof(MessageHeader);
    std::memcpy(message.data() + offsetof(MessageHeader, payload_bytes), &payload_bytes, 8);
    const Status status = decode_plan(message, kEpoch, kLimits, plan);
    EXPECT_EQ(status.ok(), size == whole.size()) << size;
  }
}

TEST(Plan, RefusesWhatIsPastALimit) {
  const auto entry = [](size_t field) { return kFirstEntry + field; };
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, slot)), 8), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, num_tokens)), 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, num_tokens)), 64),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, num_tokens)), 0xFFFFFFFF),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, first_position)), 0x7FFFFFFF),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, num_new_blocks)), 0xFFFFFFFF),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, num_new_blocks)), 5), StatusCode::kDataLoss);
  EXPECT_EQ(code_with(entry(offsetof(SequenceEntry, starts)), 2), StatusCode::kDataLoss);
  EXPECT_EQ(code_with(kNumPaddedRows, 0), StatusCode::kOk);
  EXPECT_EQ(code_with(kNumPaddedRows, 34), StatusCode::kOk);
  EXPECT_EQ(code_with(kNumPaddedRows, 33), StatusCode::kInvalidArgument);  // of 34 tokens
  EXPECT_EQ(code_with(kNumPaddedRows, kLimits.max_tokens + 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(kNumFollowing, 0), StatusCode::kOk);
  EXPECT_EQ(code_with(kNumFollowing, kLimits.max_micro_batches), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(kNumReleased, 9), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(kNumReleased, 8), StatusCode::kDataLoss);
  EXPECT_EQ(code_with(kFirstReleased, 8), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(kFirstBlock, 32), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(kFirstBlock, 0xFFFFFFFE), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(kFirstBlock, 0xFFFFFFFF), StatusCode::kOk);  // kNoBlock
  PlanLimits whole = kLimits;
  whole.has_holes = false;
  AttentionPlan plan = example_plan();
  plan.new_blocks[0] = kNoBlock;
  EXPECT_EQ(decode_plan(encode(plan), kEpoch, whole, plan).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(offsetof(MessageHeader, micro_batch), 4), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(offsetof(MessageHeader, num_rows), 9), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_with(offsetof(MessageHeader, num_rows), 0xFFFFFFFF), StatusCode::kInvalidArgument);
}

TEST(Plan, RefusesAnotherEpochOrKind) {
  AttentionPlan plan;
  const std::vector<std::byte> message = encode(example_plan());
  EXPECT_EQ(decode_plan(message, kEpoch + 1, kLimits, plan).code(), StatusCode::kAborted);
  EXPECT_EQ(code_with(offsetof(MessageHeader, version), kVersion | 2U << 16U),
            StatusCode::kAborted);
}

TEST(Plan, RandomDamageNeverEscapesTheLimits) {
  Rng rng(3);
  AttentionPlan plan;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> message = encode(random_plan(rng));
    for (uint64_t i = 0; i < 1 + rng.next_below(4); ++i) {
      message[rng.next_below(message.size())] = static_cast<std::byte>(rng.next_u64());
    }
    if (!decode_plan(message, kEpoch, kLimits, plan).ok()) continue;
    ASSERT_LE(plan.sequences.size(), kLimits.max_sequences) << "round " << round;
    ASSERT_LE(plan.num_tokens(), kLimits.max_tokens) << "round " << round;
    ASSERT_LE(plan.new_blocks.size(), kLimits.max_new_blocks) << "round " << round;
  }
}

}  // namespace
}  // namespace lamina::wire
