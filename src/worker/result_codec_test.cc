#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <set>
#include <string>

#include "wire/wire_testing.h"
#include "worker/step_codec_testing.h"

namespace lamina {
namespace {

StepResult example_result() {
  return {.step = 7,
          .micro_batch = 1,
          .outputs = {{.slot = 3,
                       .prompt_scores = {{.id = 12, .logprob = -0.5F, .top_logprobs = {}},
                                         {.id = 13,
                                          .logprob = -2.0F,
                                          .top_logprobs = {{1, -0.25F}, {13, -2.0F}}}}},
                      {.slot = 0,
                       .sampled = true,
                       .token = {.id = 5, .logprob = -1.0F, .top_logprobs = {{5, -1.0F}}}},
                      {.slot = 2, .failed = true}}};
}

StepResult refusal(std::string text) {
  return {.step = 7, .micro_batch = 1, .status = internal_error(std::move(text))};
}

class ResultSource : public Source {
 public:
  using Source::Source;

  StepResult result() {
    StepResult result{.step = 1 + static_cast<uint64_t>(below(1000)),
                      .micro_batch = below(kLimits.max_micro_batches)};
    if (below(8) == 0) {
      result.status = {static_cast<StatusCode>(1 + below(16)),
                       std::string(static_cast<size_t>(below(100)), 'x')};
      return result;
    }
    for (const int32_t slot : slots()) result.outputs.push_back(output(slot));
    return result;
  }

 private:
  ScoredToken token() {
    ScoredToken token{.id = below(kLimits.vocab_size), .logprob = real(-20, 0), .top_logprobs = {}};
    for (const int32_t id : ids(below(33), kLimits.vocab_size)) {
      token.top_logprobs.push_back({id, real(-20, 0)});
    }
    return token;
  }

  SequenceOutput output(int32_t slot) {
    SequenceOutput output{.slot = slot, .failed = below(5) == 0};
    if (output.failed) return output;
    output.sampled = coin();
    if (output.sampled) output.token = token();
    for (int32_t i = below(3); i > 0; --i) output.prompt_scores.push_back(token());
    return output;
  }
};

// Whatever was accepted keeps the limits.
bool is_sound(const ScoredToken& token) {
  return all_below({token.id}, kLimits.vocab_size) &&
         token.top_logprobs.size() <= kMaxTopLogprobs &&
         std::ranges::all_of(token.top_logprobs, [](const TokenLogprob& top) {
           return all_below({top.id}, kLimits.vocab_size);
         });
}

bool is_sound(const StepResult& result) {
  if (!result.status.ok()) {
    return result.outputs.empty() && result.status.message().size() <= kMaxStatusTextBytes;
  }
  std::set<int32_t> slots;
  int64_t num_rows = 0;
  for (const SequenceOutput& output : result.outputs) {
    num_rows += std::ssize(output.prompt_scores) + (output.sampled ? 1 : 0);
    if (!slots.insert(output.slot).second || (output.failed && output.sampled)) return false;
    if (!is_sound(output.token)) return false;
    for (const ScoredToken& score : output.prompt_scores) {
      if (!is_sound(score)) return false;
    }
  }
  return all_below({slots.begin(), slots.end()}, kLimits.max_sequences) &&
         num_rows <= kLimits.max_logits_rows;
}

TEST(StepResult, MatchesItsGoldenBytes) {
  const std::string hex = wire::to_hex(encode(example_result()));
  EXPECT_EQ(hex, wire::golden("result.hex", hex));
}

TEST(StepResult, RoundTripsIntoReusedVectors) {
  ResultSource source(3);
  StepResult decoded;
  for (int round = 0; round < 1000; ++round) {
    const StepResult result = source.result();
    const Status status = decode(encode(result), decoded);
    ASSERT_TRUE(status.ok()) << "round " << round << ": " << status.message();
    ASSERT_TRUE(same(result, decoded)) << "round " << round;
    ASSERT_TRUE(is_sound(decoded)) << "round " << round;
  }
}

TEST(StepResult, CarriesAnyLogProbability) {
  StepResult result = example_result();
  result.outputs[1].token.logprob = -std::numeric_limits<float>::infinity();
  result.outputs[1].token.top_logprobs[0].logprob = std::numeric_limits<float>::quiet_NaN();
  StepResult decoded;
  ASSERT_TRUE(decode(encode(result), decoded).ok());
  EXPECT_TRUE(same(result, decoded));
}

TEST(StepResult, OfAFailedSequenceTheSlotAloneTravels) {
  StepResult result = example_result();
  result.outputs[2].prompt_scores = {{.id = -1, .logprob = 0.0F, .top_logprobs = {}}};
  StepResult decoded;
  ASSERT_TRUE(decode(encode(result), decoded).ok());
  EXPECT_TRUE(same(example_result(), decoded));
}

TEST(StepResult, CutsALongTextBetweenCharacters) {
  StepResult decoded;
  ASSERT_TRUE(decode(encode(refusal(std::string(2000, 'x'))), decoded).ok());
  EXPECT_EQ(decoded.status.code(), StatusCode::kInternal);
  EXPECT_EQ(decoded.status.message(), std::string(1024, 'x'));
  const std::string text = std::string(1023, 'x') + "\u20AC and more";
  ASSERT_TRUE(decode(encode(refusal(text)), decoded).ok());
  EXPECT_EQ(decoded.status.message(), std::string(1023, 'x'));
  // Not UTF-8: cut all the same.
  ASSERT_TRUE(decode(encode(refusal(std::string(2000, '\x80'))), decoded).ok());
  EXPECT_EQ(decoded.status.message(), std::string(1020, '\x80'));
}

TEST(StepResult, RefusesALongText) {
  std::vector<std::byte> message = encode(refusal(std::string(1024, 'x')));
  message.push_back(std::byte{'x'});
  const uint64_t payload_bytes = 1025;
  std::memcpy(message.data() + offsetof(MessageHeader, payload_bytes), &payload_bytes, 8);
  StepResult decoded;
  EXPECT_EQ(decode(message, decoded).code(), StatusCode::kInvalidArgument);
}

TEST(StepResult, RefusesEveryTruncationAndSurplus) {
  expect_no_other_length(example_result());
}

TEST(StepResult, RefusesAnotherPlaceInTheSession) {
  expect_headers_checked(example_result());
}

TEST(StepResult, RandomDamageNeverEscapesTheLimits) {
  ResultSource source(4);
  expect_damage_contained<StepResult>([&] { return source.result(); },
                                      [](const StepResult& result) { return is_sound(result); },
                                      source);
}

TEST(StepResult, RefusesMalformedOutputs) {
  const auto code = [](size_t offset, uint32_t value) {
    return code_with(example_result(), kPayload + offset, value);
  };
  EXPECT_EQ(code(0, 8), StatusCode::kInvalidArgument);  // slot
  EXPECT_EQ(code(0, ~0U), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(0, 0), StatusCode::kDataLoss);          // the second output's
  EXPECT_EQ(code(4, 3), StatusCode::kDataLoss);          // outcome
  EXPECT_EQ(code(4, 2), StatusCode::kDataLoss);          // failed, with scores
  EXPECT_EQ(code(8, 25), StatusCode::kInvalidArgument);  // num_scores
  EXPECT_EQ(code(8, ~0U), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(12, 100), StatusCode::kInvalidArgument);  // first score: token
  EXPECT_EQ(code(12, ~0U), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(20, 33), StatusCode::kInvalidArgument);   // its num_top
  EXPECT_EQ(code(36, 100), StatusCode::kInvalidArgument);  // a token of the second's
  // A status with outputs: status lies above dtype.
  EXPECT_EQ(code_with(example_result(), offsetof(MessageHeader, dtype), 13U << 16U),
            StatusCode::kDataLoss);
}

TEST(StepResult, RefusesMoreScoresThanRows) {
  StepResult result{.step = 1};
  for (int32_t slot = 0; slot < 2; ++slot) {
    result.outputs.push_back(
        {.slot = slot, .sampled = true, .prompt_scores = std::vector<ScoredToken>(11)});
  }
  EXPECT_EQ(code_of(result), StatusCode::kOk);
  result.outputs[1].prompt_scores.emplace_back();
  EXPECT_EQ(code_of(result), StatusCode::kInvalidArgument);
}

TEST(StepResult, TheLargestFillsItsSlot) {
  StepResult result{.step = 1};
  const ScoredToken token{
      .id = 0, .logprob = 0.0F, .top_logprobs = std::vector<TokenLogprob>(kMaxTopLogprobs)};
  for (int32_t slot = 0; slot < kLimits.max_sequences; ++slot) {
    result.outputs.push_back(
        {.slot = slot, .sampled = true, .token = token, .prompt_scores = {token, token}});
  }
  ASSERT_EQ(code_of(result), StatusCode::kOk);
  EXPECT_EQ(encoded_bytes(result), max_result_bytes(kLimits));
  // The longest text may be longer than any outputs.
  EXPECT_EQ(encoded_bytes(refusal(std::string(9999, 'x'))), max_result_bytes({}));
}

}  // namespace
}  // namespace lamina
