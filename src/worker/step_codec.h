// What an engine and a model replica say to each other over the data plane: the step that it is to
// run, and what came of it. Plain structs, encode beside decode; docs/wire.md draws the layouts.
// Decoding is for hostile bytes: what it accepts keeps every limit, and each byte is read at most
// once. Whether a plan fits the state of its slots is for the model worker to find.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/status.h"
#include "plan/step_plan.h"

namespace lamina {

// Entries of one SamplingParams. The server bounds a request's logit_bias and stop ids by 1024
// each; the model's own end ids join the latter.
inline constexpr uint32_t kMaxLogitBias = 1024;
inline constexpr uint32_t kMaxForbiddenIds = 1024 + 256;
// num_logprobs of one SamplingParams, hence top_logprobs of one token; the server allows 20.
inline constexpr uint32_t kMaxTopLogprobs = 32;
// Of a refusal's text.
inline constexpr size_t kMaxStatusTextBytes = 1024;

// A step as a model replica gets it.
struct ReplicaStep {
  uint64_t step = 0;  // counts from 1 over all micro-batches
  int32_t micro_batch = 0;
  int32_t first_replica = 0;  // runs slice 0
  int32_t num_following = 0;  // steps after this one that are run together with it
  StepPlan plan;
};

// What comes back.
struct StepResult {
  uint64_t step = 0;
  int32_t micro_batch = 0;
  Status status;  // not ok: there are no outputs, and its text is cut to kMaxStatusTextBytes
  // Of one that failed the slot alone travels. Log-probabilities may be any bits, NaN included:
  // they are shown to users and steer nothing.
  std::vector<SequenceOutput> outputs;
};

// Bounds of a session, known to both sides, that a message is checked against before anything is
// sized by it.
struct StepCodecLimits {
  int32_t max_micro_batches = 1;
  int32_t num_replicas = 1;
  int32_t max_sequences = 0;    // slots
  int32_t max_tokens = 0;       // query tokens of a step
  int32_t max_logits_rows = 0;  // scored and sampled rows of a step
  int32_t max_blocks = 0;       // ids are below; a plan brings no more new ones
  int32_t vocab_size = 0;
  int32_t max_positions = std::numeric_limits<int32_t>::max();  // tokens of a sequence
};

// Bytes of the encoded message, header included.
size_t encoded_bytes(const ReplicaStep& step);
size_t encoded_bytes(const StepResult& result);

// Fills `message`, which has encoded_bytes() bytes. CHECKs that a sequence has as many tokens and
// score targets as it says, and that the plan's `starts` are as many as its sequences that start.
void encode_step(const ReplicaStep& step, uint64_t epoch, std::span<std::byte> message);
void encode_result(const StepResult& result, uint64_t epoch, std::span<std::byte> message);

// Reuse the vectors of `into`, which holds something arbitrary, though within the limits' sizes,
// after an error: kDataLoss for a malformed message, kAborted for another epoch or kind,
// kInvalidArgument past a limit. A plan without sequences is well formed.
Status decode_step(std::span<const std::byte> message,
                   uint64_t epoch,
                   const StepCodecLimits& limits,
                   ReplicaStep& into);
Status decode_result(std::span<const std::byte> message,
                     uint64_t epoch,
                     const StepCodecLimits& limits,
                     StepResult& into);

// Size of the slot that receives any message within the limits. Throw Error kInvalidArgument for a
// negative limit.
size_t max_step_bytes(const StepCodecLimits& limits);
size_t max_result_bytes(const StepCodecLimits& limits);

}  // namespace lamina
