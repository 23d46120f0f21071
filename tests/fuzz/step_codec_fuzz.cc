// Steps and results as a hostile engine or model replica could send them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "wire/messages.h"
#include "worker/step_codec.h"

namespace {

using lamina::wire::MessageHeader;

constexpr lamina::StepCodecLimits kLimits{.max_micro_batches = 4,
                                          .num_replicas = 3,
                                          .max_sequences = 8,
                                          .max_tokens = 64,
                                          .max_logits_rows = 24,
                                          .max_blocks = 32,
                                          .vocab_size = 100};

void require(bool condition) {
  if (!condition) std::abort();
}

// What was accepted is what would be sent, but for header fields that the message does not use.
void require_same_payload(std::span<const std::byte> sent, std::span<const std::byte> again) {
  require(sent.size() == again.size());
  require(std::memcmp(sent.data() + sizeof(MessageHeader),
                      again.data() + sizeof(MessageHeader),
                      sent.size() - sizeof(MessageHeader)) == 0);
}

void try_step(std::span<const std::byte> message, uint64_t epoch) {
  lamina::ReplicaStep step;
  if (!decode_step(message, epoch, kLimits, step).ok()) return;
  require(message.size() <= max_step_bytes(kLimits));
  require(step.plan.num_tokens() <= kLimits.max_tokens);
  std::vector<std::byte> again(encoded_bytes(step));
  encode_step(step, epoch, again);
  require_same_payload(message, again);
}

void try_result(std::span<const std::byte> message, uint64_t epoch) {
  lamina::StepResult result;
  if (!decode_result(message, epoch, kLimits, result).ok()) return;
  require(message.size() <= max_result_bytes(kLimits));
  require(result.status.ok() || result.outputs.empty());
  std::vector<std::byte> again(encoded_bytes(result));
  encode_result(result, epoch, again);
  require_same_payload(message, again);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  std::vector<std::byte> message(bytes.begin(), bytes.end());
  if (size >= sizeof(MessageHeader)) {
    // Else hardly any input that grew or shrank would get past its header.
    const uint64_t payload_bytes = size - sizeof(MessageHeader);
    std::memcpy(message.data() + offsetof(MessageHeader, payload_bytes), &payload_bytes, 8);
  }
  const auto header = lamina::wire::decode_header(message);
  const uint64_t epoch = header.ok() ? header->epoch : 1;
  try_step(message, epoch);
  try_result(message, epoch);
  return 0;
}
