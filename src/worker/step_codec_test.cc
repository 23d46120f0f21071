#include "worker/step_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <set>
#include <string>

#include "base/error.h"
#include "wire/wire_testing.h"
#include "worker/step_codec_testing.h"

namespace lamina {
namespace {

// Where things lie in the message of example_step().
constexpr size_t kNumFollowing = kPayload + 4;
constexpr size_t kNumReleased = kPayload + 8;
constexpr size_t kReleased = kPayload + 12;
constexpr size_t kSequence = kReleased + 4;  // the first, with 3 tokens, 2 blocks, 2 targets
constexpr size_t kTokens = kSequence + 32;
constexpr size_t kBlocks = kTokens + 12;
constexpr size_t kTargets = kBlocks + 8;
constexpr size_t kSecond = kTargets + 8;  // with 1 token
constexpr size_t kStart = kSecond + 32 + 4;
constexpr size_t kBias = kStart + 60;
constexpr size_t kForbidden = kBias + 8;

ReplicaStep example_step() {
  const SamplingParams sampling{.temperature = 0.5F,
                                .top_p = 0.9F,
                                .seed = 0x0123456789ABCDEFULL,
                                .logit_bias = {{7, -1.5F}},
                                .forbidden_ids = {98, 99},
                                .num_logprobs = 2};
  return {.step = 7,
          .micro_batch = 1,
          .first_replica = 2,
          .num_following = 1,
          .plan = {.released_slots = {3},
                   .starts = {{.slot = 3, .sampling = sampling, .num_prompt_tokens = 4}},
                   .sequences = {{.slot = 3,
                                  .num_tokens = 3,
                                  .tokens = {10, 11, 12},
                                  .new_blocks = {4, 31},
                                  .starts = true,
                                  .score_begin = 1,
                                  .num_scored = 2,
                                  .score_targets = {12, 13}},
                                 {.slot = 0,
                                  .first_position = 20,
                                  .num_tokens = 1,
                                  .tokens = {99},
                                  .samples = true}}}};
}

class StepSource : public Source {
 public:
  using Source::Source;

  ReplicaStep step() {
    ReplicaStep step{.step = 1 + static_cast<uint64_t>(below(1000)),
                     .micro_batch = below(kLimits.max_micro_batches),
                     .first_replica = below(kLimits.num_replicas),
                     .num_following = below(kLimits.max_micro_batches)};
    step.plan.released_slots = slots();
    for (const int32_t slot : slots()) {
      step.plan.sequences.push_back(sequence(slot));
      if (step.plan.sequences.back().starts) step.plan.starts.push_back(start(slot));
    }
    if (coin()) std::ranges::reverse(step.plan.starts);
    return step;
  }

 private:
  SequenceStep sequence(int32_t slot) {
    SequenceStep step{.slot = slot, .num_tokens = 1 + below(8), .starts = coin()};
    step.first_position = below(100000);
    step.tokens = ids(step.num_tokens, kLimits.vocab_size);
    step.new_blocks = ids(below(5), kLimits.max_blocks);
    step.samples = coin();
    const int32_t first_scored = below(step.num_tokens);
    step.score_begin = step.first_position + first_scored;
    step.num_scored = below(1 + std::min(2, step.num_tokens - first_scored));
    step.score_targets = ids(step.num_scored, kLimits.vocab_size);
    return step;
  }

  SequenceStart start(int32_t slot) {
    SamplingParams sampling{.temperature = real(0, 2),
                            .top_p = real(0.1F, 1),
                            .top_k = below(100) - 1,
                            .min_p = real(0, 1),
                            .presence_penalty = real(-2, 2),
                            .frequency_penalty = real(-2, 2),
                            .repetition_penalty = real(0.1F, 3),
                            .seed = word(),
                            .forbidden_ids = ids(below(4), kLimits.vocab_size),
                            .min_tokens = below(10),
                            .num_logprobs = below(34) - 1};
    for (const int32_t id : ids(below(4), kLimits.vocab_size)) {
      sampling.logit_bias.emplace_back(id, real(-100, 100));
    }
    return {.slot = slot, .sampling = std::move(sampling), .num_prompt_tokens = 1 + below(1000)};
  }
};

// Whatever was accepted keeps the limits.
bool is_sound(const SequenceStep& step) {
  const bool sizes = step.num_tokens > 0 && std::ssize(step.tokens) == step.num_tokens &&
                     std::ssize(step.score_targets) == step.num_scored;
  const int32_t end = step.first_position + step.num_tokens;
  const bool places = step.first_position >= 0 && end > step.first_position &&
                      (step.num_scored == 0 || (step.score_begin >= step.first_position &&
                                                step.score_begin + step.num_scored <= end));
  return sizes && places && all_below(step.tokens, kLimits.vocab_size) &&
         all_below(step.new_blocks, kLimits.max_blocks) &&
         all_below(step.score_targets, kLimits.vocab_size);
}

bool is_sound(const SequenceStart& start) {
  return start.num_prompt_tokens > 0 && start.sampling.validate(kLimits.vocab_size).ok() &&
         start.sampling.num_logprobs <= static_cast<int32_t>(kMaxTopLogprobs) &&
         start.sampling.logit_bias.size() <= kMaxLogitBias &&
         start.sampling.forbidden_ids.size() <= kMaxForbiddenIds;
}

bool is_sound(const ReplicaStep& step) {
  std::set<int32_t> slots;
  std::set<int32_t> starting;
  std::set<int32_t> starts;
  int64_t num_tokens = 0;
  int64_t num_rows = 0;
  int64_t num_blocks = 0;
  for (const SequenceStep& sequence : step.plan.sequences) {
    if (!is_sound(sequence) || !slots.insert(sequence.slot).second) return false;
    if (sequence.starts) starting.insert(sequence.slot);
    num_tokens += sequence.num_tokens;
    num_rows += sequence.num_scored + (sequence.samples ? 1 : 0);
    num_blocks += std::ssize(sequence.new_blocks);
  }
  for (const SequenceStart& start : step.plan.starts) {
    if (!is_sound(start) || !starts.insert(start.slot).second) return false;
  }
  return starts == starting && all_below({slots.begin(), slots.end()}, kLimits.max_sequences) &&
         num_tokens <= kLimits.max_tokens && num_rows <= kLimits.max_logits_rows &&
         num_blocks <= kLimits.max_blocks && step.micro_batch >= 0 &&
         step.micro_batch < kLimits.max_micro_batches && step.first_replica >= 0 &&
         step.first_replica < kLimits.num_replicas && step.num_following >= 0 &&
         step.num_following < kLimits.max_micro_batches &&
         std::ssize(step.plan.released_slots) <= kLimits.max_sequences &&
         all_below(step.plan.released_slots, kLimits.max_sequences);
}

TEST(ReplicaStep, MatchesItsGoldenBytes) {
  const std::string hex = wire::to_hex(encode(example_step()));
  EXPECT_EQ(hex, wire::golden("step.hex", hex));
}

TEST(ReplicaStep, RoundTripsIntoReusedVectors) {
  StepSource source(1);
  ReplicaStep decoded;
  for (int round = 0; round < 1000; ++round) {
    const ReplicaStep step = source.step();
    const Status status = decode(encode(step), decoded);
    ASSERT_TRUE(status.ok()) << "round " << round << ": " << status.message();
    ASSERT_TRUE(same(step, decoded)) << "round " << round;
    ASSERT_TRUE(is_sound(decoded)) << "round " << round;
  }
}

TEST(ReplicaStep, RefusesEveryTruncationAndSurplus) {
  expect_no_other_length(example_step());
}

TEST(ReplicaStep, RefusesAnotherPlaceInTheSession) {
  expect_headers_checked(example_step());
}

TEST(ReplicaStep, RandomDamageNeverEscapesTheLimits) {
  StepSource source(2);
  expect_damage_contained<ReplicaStep>([&] { return source.step(); },
                                       [](const ReplicaStep& step) { return is_sound(step); },
                                       source);
}

TEST(ReplicaStep, RefusesWordsPastALimit) {
  const std::vector<std::pair<size_t, uint32_t>> words = {
      {kPayload, 3},  // first_replica
      {kPayload, ~0U},
      {kNumFollowing, 4},
      {kNumFollowing, ~0U},
      {kNumReleased, 9},
      {kReleased, 8},
      {kReleased, ~0U},
      {kSequence, 8},  // slot
      {kSequence, ~0U},
      {kSequence + 8, 0},  // num_tokens
      {kSequence + 8, 65},
      {kSequence + 8, ~0U},
      {kSequence + 12, 33},   // num_new_blocks
      {kSequence + 24, ~0U},  // score_begin
      {kSequence + 24, 2},
      {kSequence + 28, 3},  // num_scored
      {kSequence + 28, ~0U},
      {kTokens + 8, 100},
      {kTokens, ~0U},
      {kBlocks + 4, 32},
      {kBlocks, ~0U},  // no block is another's here
      {kTargets, 100},
      {kSecond + 4, 0x7FFFFFFF},  // first_position
      {kSecond + 4, 200000},      // the last one, and one token
      {kSecond + 4, ~0U},
      {kSecond + 24, ~0U},  // score_begin, though nothing is scored
      {kStart + 4, 0},      // num_prompt_tokens
      {kStart + 4, ~0U},
      {kStart + 16, 0x7FC00000},  // temperature is not a number
      {kStart + 20, 0x40000000},  // top_p is 2
      {kStart + 48, 33},          // num_logprobs
      {kStart + 48, ~0U - 1},
      {kStart + 52, kMaxLogitBias + 1},
      {kStart + 56, kMaxForbiddenIds + 1},
      {kBias, 100},
      {kBias + 4, 0x7FC00000},
      {kForbidden + 4, 100},
  };
  for (const auto& [offset, value] : words) {
    EXPECT_EQ(code_with(example_step(), offset, value), StatusCode::kInvalidArgument)
        << "byte " << offset << ", value " << value;
  }
}

TEST(ReplicaStep, RefusesWordsThatContradictOthers) {
  const std::vector<std::pair<size_t, uint32_t>> words = {
      {kNumReleased, 8},    // more follows than there is, and is taken for something else
      {kSequence + 16, 2},  // starts
      {kSequence + 16, 0},  // a start is left over
      {kSequence + 20, 2},  // samples
      {kSecond, 3},         // the first sequence's slot
      {kSecond + 16, 1},    // starts, without saying how it samples
      {kStart, 0},          // a sequence that does not start
      {kStart, 5},          // a slot that does not run
      {kStart + 52, 1024},
      {kStart + 56, 1024},
  };
  for (const auto& [offset, value] : words) {
    EXPECT_NE(code_with(example_step(), offset, value), StatusCode::kOk)
        << "byte " << offset << ", value " << value;
    if (offset == kNumReleased) continue;
    EXPECT_EQ(code_with(example_step(), offset, value), StatusCode::kDataLoss)
        << "byte " << offset << ", value " << value;
  }
}

TEST(ReplicaStep, RefusesAStartTwice) {
  ReplicaStep step = example_step();
  step.plan.sequences[1] = {.slot = 0, .num_tokens = 1, .tokens = {1}, .starts = true};
  step.plan.starts.push_back(step.plan.starts[0]);
  EXPECT_EQ(code_of(step), StatusCode::kDataLoss);
  step.plan.starts[1].slot = 0;
  EXPECT_EQ(code_of(step), StatusCode::kOk);
}

TEST(ReplicaStep, RefusesSumsPastALimit) {
  ReplicaStep step{.step = 1};
  for (int32_t slot = 0; slot < 2; ++slot) {
    step.plan.sequences.push_back({.slot = slot,
                                   .num_tokens = 32,
                                   .tokens = std::vector<int32_t>(32),
                                   .new_blocks = std::vector<BlockId>(16),
                                   .samples = true,
                                   .num_scored = 11,
                                   .score_targets = std::vector<int32_t>(11)});
  }
  ASSERT_EQ(code_of(step), StatusCode::kOk);
  const auto code_after = [&](const std::function<void(SequenceStep&)>& grow) {
    ReplicaStep grown = step;
    grow(grown.plan.sequences[1]);
    return code_of(grown);
  };
  EXPECT_EQ(code_after([](SequenceStep& last) {
              ++last.num_tokens;
              last.tokens.push_back(0);
            }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code_after([](SequenceStep& last) { last.new_blocks.push_back(0); }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code_after([](SequenceStep& last) {
              ++last.num_scored;
              last.score_targets.push_back(0);
            }),
            StatusCode::kInvalidArgument);
}

TEST(ReplicaStep, TheLargestFillsItsSlot) {
  ReplicaStep step{.step = 1};
  SamplingParams sampling;
  sampling.logit_bias.resize(kMaxLogitBias);
  sampling.forbidden_ids.resize(kMaxForbiddenIds);
  const auto share = [](int32_t total) { return total / kLimits.max_sequences; };
  const int32_t num_scored = share(kLimits.max_logits_rows);
  for (int32_t slot = 0; slot < kLimits.max_sequences; ++slot) {
    step.plan.released_slots.push_back(slot);
    step.plan.starts.push_back({.slot = slot, .sampling = sampling, .num_prompt_tokens = 1});
    step.plan.sequences.push_back(
        {.slot = slot,
         .num_tokens = share(kLimits.max_tokens),
         .tokens = std::vector<int32_t>(static_cast<size_t>(share(kLimits.max_tokens))),
         .new_blocks = std::vector<BlockId>(static_cast<size_t>(share(kLimits.max_blocks))),
         .starts = true,
         .num_scored = num_scored,
         .score_targets = std::vector<int32_t>(static_cast<size_t>(num_scored))});
  }
  ASSERT_EQ(code_of(step), StatusCode::kOk);
  EXPECT_EQ(encoded_bytes(step), max_step_bytes(kLimits));
}

TEST(ReplicaStep, EncodingAContradictoryPlanIsABug) {
  ReplicaStep step = example_step();
  step.plan.starts.clear();
  EXPECT_DEATH(encode(step), "0 vs. 1");
  step = example_step();
  step.plan.sequences[1].tokens.clear();
  EXPECT_DEATH(encode(step), "1 vs. 0");
}

TEST(StepCodecLimits, SizesOfTheLargestLimitsDoNotWrap) {
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
  const StepCodecLimits all{.max_sequences = kMax,
                            .max_tokens = kMax,
                            .max_logits_rows = kMax,
                            .max_blocks = kMax,
                            .vocab_size = kMax};
  EXPECT_GT(max_step_bytes(all), size_t{kMax} << 13U);
  EXPECT_GT(max_result_bytes(all), size_t{kMax} << 8U);
}

TEST(StepCodecLimits, NegativeOnesHaveNoSize) {
  EXPECT_THROW(max_step_bytes({.max_sequences = -1}), Error);
  EXPECT_THROW(max_step_bytes({.max_tokens = -1}), Error);
  EXPECT_THROW(max_step_bytes({.max_blocks = -1}), Error);
  EXPECT_THROW(max_step_bytes({.max_logits_rows = -1}), Error);
  EXPECT_THROW(max_result_bytes({.max_sequences = -1}), Error);
  EXPECT_THROW(max_result_bytes({.max_logits_rows = -1}), Error);
}

}  // namespace
}  // namespace lamina
