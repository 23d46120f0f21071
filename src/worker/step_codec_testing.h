// What the tests of both codecs share: limits, random draws within them, equality by bits, and what
// holds for a step as for a result.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "wire/messages.h"
#include "worker/step_codec.h"

namespace lamina {

using wire::MessageHeader;

inline constexpr StepCodecLimits kLimits{.max_micro_batches = 4,
                                         .num_replicas = 3,
                                         .max_sequences = 8,
                                         .max_tokens = 64,
                                         .max_logits_rows = 24,
                                         .max_blocks = 32,
                                         .vocab_size = 100,
                                         .max_positions = 200000};
inline constexpr uint64_t kEpoch = 5;
inline constexpr size_t kPayload = sizeof(MessageHeader);

inline std::vector<std::byte> encode(const ReplicaStep& step) {
  std::vector<std::byte> message(encoded_bytes(step));
  encode_step(step, kEpoch, message);
  return message;
}

inline std::vector<std::byte> encode(const StepResult& result) {
  std::vector<std::byte> message(encoded_bytes(result));
  encode_result(result, kEpoch, message);
  return message;
}

inline Status decode(std::span<const std::byte> message,
                     ReplicaStep& into,
                     uint64_t epoch = kEpoch) {
  return decode_step(message, epoch, kLimits, into);
}

inline Status decode(std::span<const std::byte> message,
                     StepResult& into,
                     uint64_t epoch = kEpoch) {
  return decode_result(message, epoch, kLimits, into);
}

// The code after the 32-bit word at `offset` of the message of `original` became `value`.
template <typename T>
StatusCode code_with(const T& original, size_t offset, uint32_t value) {
  std::vector<std::byte> message = encode(original);
  std::memcpy(message.data() + offset, &value, sizeof(value));
  T decoded;
  return decode(message, decoded).code();
}

template <typename T>
StatusCode code_of(const T& sent) {
  T decoded;
  return decode(encode(sent), decoded).code();
}

// ---- equality, floats by their bits ----

inline bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

inline bool same(const std::pair<int32_t, float>& a, const std::pair<int32_t, float>& b) {
  return a.first == b.first && same(a.second, b.second);
}

// Finds same() of T by its namespace.
template <typename T>
bool all_same(const std::vector<T>& a, const std::vector<T>& b) {
  return std::ranges::equal(a, b, [](const T& x, const T& y) { return same(x, y); });
}

inline bool same(const SamplingParams& a, const SamplingParams& b) {
  return same(a.temperature, b.temperature) && same(a.top_p, b.top_p) && a.top_k == b.top_k &&
         same(a.min_p, b.min_p) && same(a.presence_penalty, b.presence_penalty) &&
         same(a.frequency_penalty, b.frequency_penalty) &&
         same(a.repetition_penalty, b.repetition_penalty) && a.seed == b.seed &&
         all_same(a.logit_bias, b.logit_bias) && a.forbidden_ids == b.forbidden_ids &&
         a.min_tokens == b.min_tokens && a.num_logprobs == b.num_logprobs;
}

inline bool same(const SequenceStart& a, const SequenceStart& b) {
  return a.slot == b.slot && a.num_prompt_tokens == b.num_prompt_tokens &&
         same(a.sampling, b.sampling);
}

inline bool same(const SequenceStep& a, const SequenceStep& b) {
  return a.slot == b.slot && a.first_position == b.first_position && a.num_tokens == b.num_tokens &&
         a.tokens == b.tokens && a.new_blocks == b.new_blocks && a.starts == b.starts &&
         a.samples == b.samples && a.score_begin == b.score_begin && a.num_scored == b.num_scored &&
         a.score_targets == b.score_targets;
}

inline bool same(const ReplicaStep& a, const ReplicaStep& b) {
  return a.step == b.step && a.micro_batch == b.micro_batch && a.first_replica == b.first_replica &&
         a.num_following == b.num_following && a.plan.released_slots == b.plan.released_slots &&
         all_same(a.plan.starts, b.plan.starts) && all_same(a.plan.sequences, b.plan.sequences);
}

inline bool same(const TokenLogprob& a, const TokenLogprob& b) {
  return a.id == b.id && same(a.logprob, b.logprob);
}

inline bool same(const ScoredToken& a, const ScoredToken& b) {
  return a.id == b.id && same(a.logprob, b.logprob) && all_same(a.top_logprobs, b.top_logprobs);
}

inline bool same(const SequenceOutput& a, const SequenceOutput& b) {
  return a.slot == b.slot && a.failed == b.failed && a.sampled == b.sampled &&
         same(a.token, b.token) && all_same(a.prompt_scores, b.prompt_scores);
}

inline bool same(const StepResult& a, const StepResult& b) {
  return a.step == b.step && a.micro_batch == b.micro_batch && a.status.code() == b.status.code() &&
         a.status.message() == b.status.message() && all_same(a.outputs, b.outputs);
}

// ---- random draws within the limits ----

class Source {
 public:
  explicit Source(uint64_t seed) : rng_(seed) {}

  // In [0, end).
  int32_t below(int32_t end) {
    return static_cast<int32_t>(rng_.next_below(static_cast<uint64_t>(end)));
  }
  uint64_t word() { return rng_.next_u64(); }
  bool coin() { return below(2) == 0; }
  std::byte byte() { return static_cast<std::byte>(word()); }
  float real(float low, float high) { return low + (high - low) * rng_.next_float(); }
  std::vector<int32_t> ids(int32_t count, int32_t end) {
    std::vector<int32_t> drawn(static_cast<size_t>(count));
    for (int32_t& id : drawn) id = below(end);
    return drawn;
  }
  // Up to all slots, each once.
  std::vector<int32_t> slots() {
    std::vector<int32_t> all(static_cast<size_t>(kLimits.max_sequences));
    std::iota(all.begin(), all.end(), 0);
    for (size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[rng_.next_below(i)]);
    all.resize(rng_.next_below(all.size() + 1));
    return all;
  }

 private:
  Rng rng_;
};

inline bool all_below(const std::vector<int32_t>& ids, int32_t end) {
  return std::ranges::all_of(ids, [end](int32_t id) { return id >= 0 && id < end; });
}

// ---- what holds for both messages ----

template <typename T>
void expect_no_other_length(const T& original) {
  const std::vector<std::byte> whole = encode(original);
  for (size_t size = 0; size <= whole.size() + 8; ++size) {
    std::vector<std::byte> message = whole;
    message.resize(size);
    T decoded;
    if (size != whole.size()) {
      EXPECT_EQ(decode(message, decoded).code(), StatusCode::kDataLoss) << size;
    }
    if (size < kPayload) continue;
    // The same with a header that agrees with the length: the content must not.
    const uint64_t payload_bytes = size - kPayload;
    std::memcpy(message.data() + offsetof(MessageHeader, payload_bytes), &payload_bytes, 8);
    const StatusCode expected = size == whole.size() ? StatusCode::kOk : StatusCode::kDataLoss;
    EXPECT_EQ(decode(message, decoded).code(), expected) << size;
  }
}

// `draw` gives a valid message, `is_sound` whether a decoded one keeps kLimits.
template <typename T>
void expect_damage_contained(const std::function<T()>& draw,
                             const std::function<bool(const T&)>& is_sound,
                             Source& source) {
  T decoded;
  int num_accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> message = encode(draw());
    for (int32_t i = 1 + source.below(4); i > 0; --i) {
      message[static_cast<size_t>(source.below(static_cast<int32_t>(message.size())))] =
          source.byte();
    }
    if (!decode(message, decoded).ok()) continue;
    ++num_accepted;
    ASSERT_TRUE(is_sound(decoded)) << "round " << round;
    // Nothing was accepted that would not be sent: but for header fields that are not used.
    const std::vector<std::byte> again = encode(decoded);
    ASSERT_TRUE(std::ranges::equal(std::span(again).subspan(kPayload),
                                   std::span(message).subspan(kPayload)))
        << "round " << round;
  }
  EXPECT_GT(num_accepted, 1000);
}

template <typename T>
void expect_headers_checked(const T& original) {
  T decoded;
  const std::vector<std::byte> message = encode(original);
  EXPECT_EQ(decode(message, decoded, kEpoch + 1).code(), StatusCode::kAborted);
  const auto code = [&](size_t field, uint32_t value) { return code_with(original, field, value); };
  constexpr size_t kVersionAndKind = offsetof(MessageHeader, version);
  EXPECT_EQ(code(kVersionAndKind, wire::kVersion | 1U << 16U), StatusCode::kAborted);
  EXPECT_EQ(code(kVersionAndKind, wire::kVersion | 9U << 16U), StatusCode::kDataLoss);
  EXPECT_EQ(code(kVersionAndKind, 2U), StatusCode::kDataLoss);
  EXPECT_EQ(code(offsetof(MessageHeader, step), 0), StatusCode::kDataLoss);
  EXPECT_EQ(code(offsetof(MessageHeader, layer), 1), StatusCode::kDataLoss);
  EXPECT_EQ(code(offsetof(MessageHeader, micro_batch), 4), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(offsetof(MessageHeader, micro_batch), ~0U), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(offsetof(MessageHeader, num_rows), 9), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(offsetof(MessageHeader, num_rows), ~0U), StatusCode::kInvalidArgument);
}

}  // namespace lamina
