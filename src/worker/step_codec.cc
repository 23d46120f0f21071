// The step half of step_codec.h.
#include "worker/step_codec.h"

#include <fmt/format.h>

#include <algorithm>

#include "wire/byte_codec.h"
#include "wire/messages.h"
#include "worker/codec_checks.h"

namespace lamina {
namespace {

using namespace codec;
using wire::ByteReader;
using wire::ByteWriter;
using wire::MessageHeader;
using wire::MessageKind;

// The fixed parts of the payload, floats as bits.
struct StepRecord {
  int32_t first_replica = 0;
  int32_t num_following = 0;
  uint32_t num_released = 0;
};
static_assert(sizeof(StepRecord) == 12);

struct SequenceRecord {
  int32_t slot = 0;
  int32_t first_position = 0;
  uint32_t num_tokens = 0;
  uint32_t num_new_blocks = 0;
  uint32_t starts = 0;
  uint32_t samples = 0;
  int32_t score_begin = 0;
  uint32_t num_scored = 0;
};
static_assert(sizeof(SequenceRecord) == 32);

struct StartRecord {
  int32_t slot = 0;
  int32_t num_prompt_tokens = 0;
  uint32_t seed_low = 0;  // two halves, so that the size is no multiple of 8 with a hole
  uint32_t seed_high = 0;
  uint32_t temperature = 0;
  uint32_t top_p = 0;
  int32_t top_k = 0;
  uint32_t min_p = 0;
  uint32_t presence_penalty = 0;
  uint32_t frequency_penalty = 0;
  uint32_t repetition_penalty = 0;
  int32_t min_tokens = 0;
  int32_t num_logprobs = 0;
  uint32_t num_logit_bias = 0;
  uint32_t num_forbidden_ids = 0;
};
static_assert(sizeof(StartRecord) == 60);

size_t payload_bytes(const SequenceStep& step) {
  return sizeof(SequenceRecord) +
         (step.tokens.size() + step.new_blocks.size() + step.score_targets.size()) *
             sizeof(int32_t);
}

size_t payload_bytes(const SamplingParams& sampling) {
  return sizeof(StartRecord) + sampling.logit_bias.size() * sizeof(ValueRecord) +
         sampling.forbidden_ids.size() * sizeof(int32_t);
}

void write_sequence(const SequenceStep& step, ByteWriter& writer) {
  LAMINA_CHECK_EQ(static_cast<int64_t>(step.num_tokens), std::ssize(step.tokens));
  LAMINA_CHECK_EQ(static_cast<int64_t>(step.num_scored), std::ssize(step.score_targets));
  writer.write(SequenceRecord{.slot = step.slot,
                              .first_position = step.first_position,
                              .num_tokens = count_of(step.tokens),
                              .num_new_blocks = count_of(step.new_blocks),
                              .starts = step.starts ? 1U : 0U,
                              .samples = step.samples ? 1U : 0U,
                              .score_begin = step.score_begin,
                              .num_scored = count_of(step.score_targets)});
  writer.write_all(std::span(step.tokens));
  writer.write_all(std::span(step.new_blocks));
  writer.write_all(std::span(step.score_targets));
}

void write_start(const SequenceStart& start, ByteWriter& writer) {
  const SamplingParams& sampling = start.sampling;
  writer.write(StartRecord{.slot = start.slot,
                           .num_prompt_tokens = start.num_prompt_tokens,
                           .seed_low = static_cast<uint32_t>(sampling.seed),
                           .seed_high = static_cast<uint32_t>(sampling.seed >> 32U),
                           .temperature = to_bits(sampling.temperature),
                           .top_p = to_bits(sampling.top_p),
                           .top_k = sampling.top_k,
                           .min_p = to_bits(sampling.min_p),
                           .presence_penalty = to_bits(sampling.presence_penalty),
                           .frequency_penalty = to_bits(sampling.frequency_penalty),
                           .repetition_penalty = to_bits(sampling.repetition_penalty),
                           .min_tokens = sampling.min_tokens,
                           .num_logprobs = sampling.num_logprobs,
                           .num_logit_bias = count_of(sampling.logit_bias),
                           .num_forbidden_ids = count_of(sampling.forbidden_ids)});
  for (const auto& [id, bias] : sampling.logit_bias) writer.write(ValueRecord{id, to_bits(bias)});
  writer.write_all(std::span(sampling.forbidden_ids));
}

Status check_record(const SequenceRecord& record, int32_t max_positions) {
  if (record.starts > 1 || record.samples > 1) {
    return data_loss(
        fmt::format("step has starts = {}, samples = {}", record.starts, record.samples));
  }
  if (record.num_tokens == 0) return invalid_argument("step has a sequence without tokens");
  const int64_t first = record.first_position;
  const int64_t end = first + record.num_tokens;
  if (first < 0 || end > max_positions) {
    return invalid_argument(fmt::format("step has positions {} to {}", first, end));
  }
  const int64_t score_end = int64_t{record.score_begin} + record.num_scored;
  const bool is_inside = record.score_begin >= first && score_end <= end;
  if (record.score_begin < 0 || (record.num_scored > 0 && !is_inside)) {
    return invalid_argument(fmt::format(
        "step scores positions {} to {} of {} to {}", record.score_begin, score_end, first, end));
  }
  return {};
}

// What SamplingParams::validate leaves open.
Status check_counts(const StartRecord& record) {
  LAMINA_RETURN_IF_ERROR(check_at_most("logit_bias entries", record.num_logit_bias, kMaxLogitBias));
  LAMINA_RETURN_IF_ERROR(
      check_at_most("forbidden ids", record.num_forbidden_ids, kMaxForbiddenIds));
  const auto num_logprobs = static_cast<uint64_t>(std::max(record.num_logprobs, 0));
  return check_at_most("logprobs per token", num_logprobs, kMaxTopLogprobs);
}

SamplingParams& copy_scalars(const StartRecord& record, SamplingParams& sampling) {
  sampling.seed = uint64_t{record.seed_high} << 32U | record.seed_low;
  sampling.temperature = from_bits(record.temperature);
  sampling.top_p = from_bits(record.top_p);
  sampling.top_k = record.top_k;
  sampling.min_p = from_bits(record.min_p);
  sampling.presence_penalty = from_bits(record.presence_penalty);
  sampling.frequency_penalty = from_bits(record.frequency_penalty);
  sampling.repetition_penalty = from_bits(record.repetition_penalty);
  sampling.min_tokens = record.min_tokens;
  sampling.num_logprobs = record.num_logprobs;
  return sampling;
}

// Reads the payload of one step; used once.
class StepReader {
 public:
  StepReader(std::span<const std::byte> payload, const StepCodecLimits& limits)
      : reader_(payload),
        limits_(limits),
        tokens_left_("tokens", limits.max_tokens),
        rows_left_("rows of logits", limits.max_logits_rows),
        blocks_left_("new blocks", limits.max_blocks),
        slots_(limits.max_sequences) {}

  // `num_sequences` has been bounded.
  Status read(uint32_t num_sequences, ReplicaStep& into) {
    StepRecord record;
    if (!reader_.read(record)) return truncated();
    LAMINA_RETURN_IF_ERROR(check_below("replica", record.first_replica, limits_.num_replicas));
    LAMINA_RETURN_IF_ERROR(
        check_below("number of following steps", record.num_following, limits_.max_micro_batches));
    into.first_replica = record.first_replica;
    into.num_following = record.num_following;
    LAMINA_RETURN_IF_ERROR(read_released(record.num_released, into.plan.released_slots));
    into.plan.sequences.resize(num_sequences);
    for (SequenceStep& step : into.plan.sequences) LAMINA_RETURN_IF_ERROR(read_sequence(step));
    // One for each sequence that starts, and no slot twice: so each of them has its own.
    into.plan.starts.resize(num_starts_);
    for (SequenceStart& start : into.plan.starts) LAMINA_RETURN_IF_ERROR(read_start(start));
    return check_end(reader_);
  }

 private:
  Status read_released(uint32_t count, std::vector<int32_t>& into) {
    LAMINA_RETURN_IF_ERROR(
        check_below("number of released slots", count, int64_t{limits_.max_sequences} + 1));
    LAMINA_RETURN_IF_ERROR(read_vector(reader_, count, into));
    return check_all_below("released slot", into, limits_.max_sequences);
  }

  Status read_sequence(SequenceStep& step) {
    SequenceRecord record;
    if (!reader_.read(record)) return truncated();
    LAMINA_RETURN_IF_ERROR(check_record(record, limits_.max_positions));
    const bool starts = record.starts == 1;
    LAMINA_RETURN_IF_ERROR(
        slots_.change(record.slot, SlotUse::kNone, starts ? SlotUse::kStarts : SlotUse::kRuns));
    num_starts_ += record.starts;
    LAMINA_RETURN_IF_ERROR(tokens_left_.take(record.num_tokens));
    LAMINA_RETURN_IF_ERROR(blocks_left_.take(record.num_new_blocks));
    LAMINA_RETURN_IF_ERROR(rows_left_.take(record.num_scored));
    LAMINA_RETURN_IF_ERROR(rows_left_.take(record.samples));
    step.slot = record.slot;
    step.first_position = record.first_position;
    step.num_tokens = static_cast<int32_t>(record.num_tokens);
    step.starts = starts;
    step.samples = record.samples == 1;
    step.score_begin = record.score_begin;
    step.num_scored = static_cast<int32_t>(record.num_scored);
    return read_ids(record, step);
  }

  Status read_ids(const SequenceRecord& record, SequenceStep& step) {
    LAMINA_RETURN_IF_ERROR(read_vector(reader_, record.num_tokens, step.tokens));
    LAMINA_RETURN_IF_ERROR(read_vector(reader_, record.num_new_blocks, step.new_blocks));
    LAMINA_RETURN_IF_ERROR(read_vector(reader_, record.num_scored, step.score_targets));
    LAMINA_RETURN_IF_ERROR(check_all_below("token", step.tokens, limits_.vocab_size));
    LAMINA_RETURN_IF_ERROR(check_all_below("block", step.new_blocks, limits_.max_blocks));
    return check_all_below("score target", step.score_targets, limits_.vocab_size);
  }

  Status read_start(SequenceStart& start) {
    StartRecord record;
    if (!reader_.read(record)) return truncated();
    LAMINA_RETURN_IF_ERROR(slots_.change(record.slot, SlotUse::kStarts, SlotUse::kStarted));
    if (record.num_prompt_tokens <= 0) {
      return invalid_argument(fmt::format("step has a prompt of {}", record.num_prompt_tokens));
    }
    LAMINA_RETURN_IF_ERROR(check_counts(record));
    start.slot = record.slot;
    start.num_prompt_tokens = record.num_prompt_tokens;
    SamplingParams& sampling = copy_scalars(record, start.sampling);
    LAMINA_RETURN_IF_ERROR(read_bias(record.num_logit_bias, sampling));
    LAMINA_RETURN_IF_ERROR(read_vector(reader_, record.num_forbidden_ids, sampling.forbidden_ids));
    return sampling.validate(limits_.vocab_size);
  }

  Status read_bias(uint32_t count, SamplingParams& sampling) {
    sampling.logit_bias.clear();
    for (uint32_t i = 0; i < count; ++i) {
      ValueRecord record;
      if (!reader_.read(record)) return truncated();
      sampling.logit_bias.emplace_back(record.id, from_bits(record.value));
    }
    return {};
  }

  ByteReader reader_;
  const StepCodecLimits& limits_;
  Budget tokens_left_;
  Budget rows_left_;
  Budget blocks_left_;
  SlotUses slots_;
  uint32_t num_starts_ = 0;
};

}  // namespace

size_t encoded_bytes(const ReplicaStep& step) {
  size_t bytes = sizeof(MessageHeader) + sizeof(StepRecord) +
                 step.plan.released_slots.size() * sizeof(int32_t);
  for (const SequenceStep& sequence : step.plan.sequences) bytes += payload_bytes(sequence);
  for (const SequenceStart& start : step.plan.starts) bytes += payload_bytes(start.sampling);
  return bytes;
}

void encode_step(const ReplicaStep& step, uint64_t epoch, std::span<std::byte> message) {
  LAMINA_CHECK_EQ(message.size(), encoded_bytes(step));
  const StepPlan& plan = step.plan;
  LAMINA_CHECK_EQ(std::ssize(plan.starts),
                  std::ranges::count_if(plan.sequences, &SequenceStep::starts));
  ByteWriter writer(message);
  writer.write(MessageHeader{.kind = static_cast<uint16_t>(MessageKind::kStep),
                             .epoch = epoch,
                             .step = step.step,
                             .micro_batch = static_cast<uint32_t>(step.micro_batch),
                             .num_rows = count_of(plan.sequences),
                             .payload_bytes = message.size() - sizeof(MessageHeader)});
  writer.write(StepRecord{.first_replica = step.first_replica,
                          .num_following = step.num_following,
                          .num_released = count_of(plan.released_slots)});
  writer.write_all(std::span(plan.released_slots));
  for (const SequenceStep& sequence : plan.sequences) write_sequence(sequence, writer);
  for (const SequenceStart& start : plan.starts) write_start(start, writer);
}

Status decode_step(std::span<const std::byte> message,
                   uint64_t epoch,
                   const StepCodecLimits& limits,
                   ReplicaStep& into) {
  LAMINA_ASSIGN_OR_RETURN(const MessageHeader header,
                          open_message(message, MessageKind::kStep, epoch, limits));
  into.step = header.step;
  into.micro_batch = static_cast<int32_t>(header.micro_batch);
  StepReader reader(message.subspan(sizeof(MessageHeader)), limits);
  return reader.read(header.num_rows, into);
}

size_t max_step_bytes(const StepCodecLimits& limits) {
  const size_t num_sequences = checked_count("max_sequences", limits.max_sequences);
  const size_t num_ids = checked_count("max_tokens", limits.max_tokens) +
                         checked_count("max_blocks", limits.max_blocks) +
                         checked_count("max_logits_rows", limits.max_logits_rows) +
                         num_sequences;  // released slots
  constexpr size_t kStartBytes = sizeof(StartRecord) + kMaxLogitBias * sizeof(ValueRecord) +
                                 kMaxForbiddenIds * sizeof(int32_t);
  static_assert(kStartBytes < 1U << 15U);
  return sizeof(MessageHeader) + sizeof(StepRecord) +
         num_sequences * (sizeof(SequenceRecord) + kStartBytes) + num_ids * sizeof(int32_t);
}

}  // namespace lamina
