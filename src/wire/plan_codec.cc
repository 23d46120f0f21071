// The StepPlan on the wire: declared in messages.h, drawn in docs/wire.md.
#include <fmt/format.h>

#include <limits>

#include "wire/byte_codec.h"
#include "wire/messages.h"

namespace lamina::wire {
namespace {

constexpr uint64_t kMaxPosition = std::numeric_limits<int32_t>::max();

Status truncated() {
  return data_loss("plan ends before its last entry");
}

Status over_limit(const char* what, uint64_t value, uint64_t limit) {
  return invalid_argument(fmt::format("plan has {} {}, limit {}", what, value, limit));
}

Status check_entry(const SequenceEntry& entry, const PlanLimits& limits) {
  if (entry.slot >= limits.max_sequences) {
    return over_limit("a sequence in slot", entry.slot, limits.max_sequences);
  }
  if (entry.starts > 1) return data_loss(fmt::format("plan has starts = {}", entry.starts));
  if (entry.num_tokens == 0) return invalid_argument("plan has a sequence without tokens");
  const uint64_t end = uint64_t{entry.first_position} + entry.num_tokens;
  if (end > kMaxPosition) return over_limit("a sequence of length", end, kMaxPosition);
  return {};
}

// Sums fit: at most 2^32 entries of 32 bits each.
Status read_entries(ByteReader& reader, const PlanLimits& limits, AttentionPlan& plan) {
  if (!reader.read_all(std::span(plan.sequences))) return truncated();
  uint64_t num_tokens = 0;
  uint64_t num_new_blocks = 0;
  for (const SequenceEntry& entry : plan.sequences) {
    LAMINA_RETURN_IF_ERROR(check_entry(entry, limits));
    num_tokens += entry.num_tokens;
    num_new_blocks += entry.num_new_blocks;
  }
  if (num_tokens > limits.max_tokens) return over_limit("tokens", num_tokens, limits.max_tokens);
  if (num_new_blocks > limits.max_new_blocks) {
    return over_limit("new blocks", num_new_blocks, limits.max_new_blocks);
  }
  plan.new_blocks.resize(num_new_blocks);
  return {};
}

Status read_padded_rows(ByteReader& reader, const PlanLimits& limits, AttentionPlan& plan) {
  if (!reader.read(plan.num_padded_rows)) return truncated();
  if (plan.num_padded_rows > limits.max_tokens) {
    return over_limit("padded rows", plan.num_padded_rows, limits.max_tokens);
  }
  if (plan.num_padded_rows != 0 && plan.num_padded_rows < plan.num_tokens()) {
    return invalid_argument("plan has fewer padded rows than tokens");
  }
  return {};
}

Status read_following(ByteReader& reader, const PlanLimits& limits, AttentionPlan& plan) {
  if (!reader.read(plan.num_following)) return truncated();
  if (plan.num_following < limits.max_micro_batches) return {};
  return over_limit("following steps", plan.num_following, limits.max_micro_batches - 1);
}

Status read_released_slots(ByteReader& reader, const PlanLimits& limits, AttentionPlan& plan) {
  uint32_t num_released = 0;
  if (!reader.read(num_released)) return truncated();
  if (num_released > limits.max_sequences) {
    return over_limit("released slots", num_released, limits.max_sequences);
  }
  plan.released_slots.resize(num_released);
  if (!reader.read_all(std::span(plan.released_slots))) return truncated();
  for (const uint32_t slot : plan.released_slots) {
    if (slot >= limits.max_sequences)
      return over_limit("released slot", slot, limits.max_sequences);
  }
  return {};
}

Status read_new_blocks(ByteReader& reader, const PlanLimits& limits, AttentionPlan& plan) {
  if (!reader.read_all(std::span(plan.new_blocks))) return truncated();
  for (const int32_t block : plan.new_blocks) {
    if (block == kNoBlock && limits.has_holes) continue;
    if (block < 0 || static_cast<uint32_t>(block) >= limits.max_blocks) {
      return invalid_argument(
          fmt::format("plan has block {} of a pool of {}", block, limits.max_blocks));
    }
  }
  return {};
}

}  // namespace

uint32_t AttentionPlan::num_tokens() const {
  uint32_t count = 0;
  for (const SequenceEntry& entry : sequences) count += entry.num_tokens;
  return count;
}

size_t encoded_bytes(const AttentionPlan& plan) {
  return sizeof(MessageHeader) + plan.sequences.size() * sizeof(SequenceEntry) +
         3 * sizeof(uint32_t) + plan.released_slots.size() * sizeof(uint32_t) +
         plan.new_blocks.size() * sizeof(int32_t);
}

void encode_plan(const AttentionPlan& plan, uint64_t epoch, std::span<std::byte> message) {
  LAMINA_CHECK_EQ(message.size(), encoded_bytes(plan));
  ByteWriter writer(message);
  writer.write(MessageHeader{.kind = static_cast<uint16_t>(MessageKind::kPlan),
                             .epoch = epoch,
                             .step = plan.step,
                             .micro_batch = plan.micro_batch,
                             .num_rows = static_cast<uint32_t>(plan.sequences.size()),
                             .payload_bytes = message.size() - sizeof(MessageHeader)});
  writer.write_all(std::span(plan.sequences));
  writer.write(plan.num_padded_rows);
  writer.write(plan.num_following);
  writer.write(static_cast<uint32_t>(plan.released_slots.size()));
  writer.write_all(std::span(plan.released_slots));
  writer.write_all(std::span(plan.new_blocks));
}

Status decode_plan(std::span<const std::byte> message,
                   uint64_t epoch,
                   const PlanLimits& limits,
                   AttentionPlan& plan) {
  LAMINA_ASSIGN_OR_RETURN(const MessageHeader header, decode_header(message));
  if (header.epoch != epoch) {
    return {StatusCode::kAborted,
            fmt::format("plan of epoch {}, expected {}", header.epoch, epoch)};
  }
  if (header.kind != static_cast<uint16_t>(MessageKind::kPlan)) {
    return {StatusCode::kAborted, fmt::format("message of kind {} for a plan", header.kind)};
  }
  if (header.num_rows > limits.max_sequences) {
    return over_limit("sequences", header.num_rows, limits.max_sequences);
  }
  if (header.micro_batch >= limits.max_micro_batches) {
    return over_limit("micro-batch", header.micro_batch, limits.max_micro_batches);
  }
  plan.step = header.step;
  plan.micro_batch = header.micro_batch;
  plan.sequences.resize(header.num_rows);

  ByteReader reader(message.subspan(sizeof(MessageHeader)));
  LAMINA_RETURN_IF_ERROR(read_entries(reader, limits, plan));
  LAMINA_RETURN_IF_ERROR(read_padded_rows(reader, limits, plan));
  LAMINA_RETURN_IF_ERROR(read_following(reader, limits, plan));
  LAMINA_RETURN_IF_ERROR(read_released_slots(reader, limits, plan));
  LAMINA_RETURN_IF_ERROR(read_new_blocks(reader, limits, plan));
  if (reader.remaining() != 0) {
    return data_loss(fmt::format("plan has {} bytes after its end", reader.remaining()));
  }
  return {};
}

}  // namespace lamina::wire
