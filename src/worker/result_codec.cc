// The result half of step_codec.h.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "wire/byte_codec.h"
#include "wire/messages.h"
#include "worker/codec_checks.h"
#include "worker/step_codec.h"

namespace lamina {
namespace {

using namespace codec;
using wire::ByteReader;
using wire::ByteWriter;
using wire::MessageHeader;
using wire::MessageKind;

enum class Outcome : uint32_t { kNothing, kSampled, kFailed };

struct OutputRecord {
  int32_t slot = 0;
  uint32_t outcome = 0;
  uint32_t num_scores = 0;
};

struct ScoredRecord {
  int32_t id = 0;
  uint32_t logprob = 0;
  uint32_t num_top = 0;
};

size_t payload_bytes(const ScoredToken& token) {
  return sizeof(ScoredRecord) + token.top_logprobs.size() * sizeof(ValueRecord);
}

size_t payload_bytes(const SequenceOutput& output) {
  size_t bytes = sizeof(OutputRecord);
  if (output.failed) return bytes;
  if (output.sampled) bytes += payload_bytes(output.token);
  for (const ScoredToken& score : output.prompt_scores) bytes += payload_bytes(score);
  return bytes;
}

// What of a refusal's text travels. Not cut inside a UTF-8 character: the text ends in JSON.
std::string_view text_of(const Status& status) {
  const std::string_view text = status.message();
  if (text.size() <= kMaxStatusTextBytes) return text;
  size_t size = kMaxStatusTextBytes;
  const auto is_continuation = [](char c) { return (static_cast<unsigned char>(c) >> 6U) == 2; };
  while (size > kMaxStatusTextBytes - 4 && is_continuation(text[size])) --size;
  return text.substr(0, size);
}

void write_token(const ScoredToken& token, ByteWriter& writer) {
  writer.write(ScoredRecord{
      .id = token.id, .logprob = to_bits(token.logprob), .num_top = count_of(token.top_logprobs)});
  for (const TokenLogprob& top : token.top_logprobs) {
    writer.write(ValueRecord{top.id, to_bits(top.logprob)});
  }
}

void write_output(const SequenceOutput& output, ByteWriter& writer) {
  const Outcome outcome = output.failed    ? Outcome::kFailed
                          : output.sampled ? Outcome::kSampled
                                           : Outcome::kNothing;
  writer.write(OutputRecord{.slot = output.slot,
                            .outcome = static_cast<uint32_t>(outcome),
                            .num_scores = output.failed ? 0 : count_of(output.prompt_scores)});
  if (output.failed) return;
  if (output.sampled) write_token(output.token, writer);
  for (const ScoredToken& score : output.prompt_scores) write_token(score, writer);
}

// Reads the payload of one result that is no refusal; used once.
class ResultReader {
 public:
  ResultReader(std::span<const std::byte> payload, const StepCodecLimits& limits)
      : reader_(payload),
        limits_(limits),
        rows_left_("scored tokens", limits.max_logits_rows),
        slots_(limits.max_sequences) {}

  // `num_outputs` has been bounded.
  Status read(uint32_t num_outputs, std::vector<SequenceOutput>& into) {
    into.resize(num_outputs);
    for (SequenceOutput& output : into) LAMINA_RETURN_IF_ERROR(read_output(output));
    return check_end(reader_);
  }

 private:
  Status read_output(SequenceOutput& output) {
    OutputRecord record;
    if (!reader_.read(record)) return truncated();
    LAMINA_RETURN_IF_ERROR(slots_.change(record.slot, SlotUse::kNone, SlotUse::kRuns));
    if (record.outcome > static_cast<uint32_t>(Outcome::kFailed)) {
      return data_loss(fmt::format("result has outcome {}", record.outcome));
    }
    const auto outcome = static_cast<Outcome>(record.outcome);
    if (outcome == Outcome::kFailed && record.num_scores > 0) {
      return data_loss("result has scores of a sequence that failed");
    }
    output.slot = record.slot;
    output.failed = outcome == Outcome::kFailed;
    output.sampled = outcome == Outcome::kSampled;
    LAMINA_RETURN_IF_ERROR(rows_left_.take(record.num_scores));
    LAMINA_RETURN_IF_ERROR(rows_left_.take(output.sampled ? 1 : 0));
    if (output.sampled) {
      LAMINA_RETURN_IF_ERROR(read_token(output.token));
    } else {
      output.token = {};
    }
    output.prompt_scores.resize(record.num_scores);
    for (ScoredToken& score : output.prompt_scores) LAMINA_RETURN_IF_ERROR(read_token(score));
    return {};
  }

  Status read_token(ScoredToken& token) {
    ScoredRecord record;
    if (!reader_.read(record)) return truncated();
    LAMINA_RETURN_IF_ERROR(check_below("token", record.id, limits_.vocab_size));
    LAMINA_RETURN_IF_ERROR(check_at_most("top_logprobs", record.num_top, kMaxTopLogprobs));
    token.id = record.id;
    token.logprob = from_bits(record.logprob);
    token.top_logprobs.resize(record.num_top);
    for (TokenLogprob& top : token.top_logprobs) {
      ValueRecord value;
      if (!reader_.read(value)) return truncated();
      LAMINA_RETURN_IF_ERROR(check_below("token", value.id, limits_.vocab_size));
      top = {.id = value.id, .logprob = from_bits(value.value)};
    }
    return {};
  }

  ByteReader reader_;
  const StepCodecLimits& limits_;
  Budget rows_left_;
  SlotUses slots_;
};

Status read_refusal(const MessageHeader& header, ByteReader reader, StepResult& into) {
  if (header.num_rows != 0) return data_loss("result has both a status and outputs");
  LAMINA_RETURN_IF_ERROR(check_at_most("bytes of text", reader.remaining(), kMaxStatusTextBytes));
  std::string text(reader.remaining(), '\0');
  if (!reader.read_all(std::span(text))) return truncated();
  into.status = {static_cast<StatusCode>(header.status), std::move(text)};
  into.outputs.clear();
  return {};
}

}  // namespace

size_t encoded_bytes(const StepResult& result) {
  size_t bytes = sizeof(MessageHeader);
  if (!result.status.ok()) return bytes + text_of(result.status).size();
  for (const SequenceOutput& output : result.outputs) bytes += payload_bytes(output);
  return bytes;
}

void encode_result(const StepResult& result, uint64_t epoch, std::span<std::byte> message) {
  LAMINA_CHECK_EQ(message.size(), encoded_bytes(result));
  const bool is_ok = result.status.ok();
  ByteWriter writer(message);
  writer.write(MessageHeader{.kind = static_cast<uint16_t>(MessageKind::kResult),
                             .epoch = epoch,
                             .step = result.step,
                             .micro_batch = static_cast<uint32_t>(result.micro_batch),
                             .num_rows = is_ok ? count_of(result.outputs) : 0,
                             .status = static_cast<uint8_t>(result.status.code()),
                             .payload_bytes = message.size() - sizeof(MessageHeader)});
  if (!is_ok) {
    writer.write_all(std::span(text_of(result.status)));
    return;
  }
  for (const SequenceOutput& output : result.outputs) write_output(output, writer);
}

Status decode_result(std::span<const std::byte> message,
                     uint64_t epoch,
                     const StepCodecLimits& limits,
                     StepResult& into) {
  LAMINA_ASSIGN_OR_RETURN(const MessageHeader header,
                          open_message(message, MessageKind::kResult, epoch, limits));
  into.step = header.step;
  into.micro_batch = static_cast<int32_t>(header.micro_batch);
  const auto payload = message.subspan(sizeof(MessageHeader));
  if (header.status != 0) return read_refusal(header, ByteReader(payload), into);
  into.status = {};
  return ResultReader(payload, limits).read(header.num_rows, into.outputs);
}

size_t max_result_bytes(const StepCodecLimits& limits) {
  constexpr size_t kTokenBytes = sizeof(ScoredRecord) + kMaxTopLogprobs * sizeof(ValueRecord);
  const size_t outputs =
      checked_count("max_sequences", limits.max_sequences) * sizeof(OutputRecord) +
      checked_count("max_logits_rows", limits.max_logits_rows) * kTokenBytes;
  return sizeof(MessageHeader) + std::max(outputs, kMaxStatusTextBytes);
}

}  // namespace lamina
