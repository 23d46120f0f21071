// Headers and plans as a hostile engine or model worker could send them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "wire/messages.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina::wire;
  const auto message = std::as_bytes(std::span(data, size));
  const PlanLimits limits{.max_micro_batches = 4,
                          .max_sequences = 16,
                          .max_tokens = 256,
                          .max_blocks = 128,
                          .max_new_blocks = 160,
                          .has_holes = true};

  const auto header = decode_header(message);
  if (header.ok()) {
    require(header->payload_bytes == size - sizeof(MessageHeader));
    const ExpectedHeader expected{.kind = static_cast<MessageKind>(header->kind),
                                  .epoch = header->epoch,
                                  .step = header->step,
                                  .layer = header->layer,
                                  .micro_batch = header->micro_batch};
    require(decode_header(message, expected).ok());
  }
  const uint64_t epoch = header.ok() ? header->epoch : 1;
  AttentionPlan plan;
  if (!decode_plan(message, epoch, limits, plan).ok()) return 0;
  require(plan.sequences.size() <= limits.max_sequences);
  require(plan.num_tokens() <= limits.max_tokens);
  require(plan.new_blocks.size() <= limits.max_new_blocks);
  // What was accepted is what would be sent, but for header fields that a plan does not use.
  std::vector<std::byte> again(encoded_bytes(plan));
  encode_plan(plan, epoch, again);
  require(again.size() == size);
  require(std::memcmp(again.data() + sizeof(MessageHeader),
                      message.data() + sizeof(MessageHeader),
                      size - sizeof(MessageHeader)) == 0);
  return 0;
}
