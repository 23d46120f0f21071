// Messages of the data plane: fixed-layout little-endian structs, encode beside decode. Handles and
// ids only, never a pointer. Whatever comes from a socket is hostile: decode validates magic,
// version, kind, epoch and length before anything is used, and views point into the received bytes,
// which outlive them. docs/wire.md draws the layouts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "tensor/dtype.h"

namespace lamina::wire {

inline constexpr uint32_t kMagic = 0x414E4D4C;  // "LMNA"
inline constexpr uint16_t kVersion = 5;

// Bits of MessageHeader::flags.
inline constexpr uint8_t kIdleForQ = 1;   // kOut: the worker had nothing to do when q came
inline constexpr uint8_t kIdleForKv = 2;  // kOut: and when k and v did

enum class MessageKind : uint16_t {
  kPlan = 1,  // engine -> attention worker, once a step
  kQ = 2,     // model worker -> attention worker, once a layer: q of the worker's heads
  kKv = 3,   // model worker -> attention worker, once a layer: k, then v, of the worker's heads and
             // of the tokens whose blocks it holds
  kOut = 4,  // attention worker -> model worker, once a layer; where it lacks blocks of the step's
             // sequences, a partial: out, then lse, in f32
  kStep = 5,     // engine -> model replica, once a step (worker/step_codec.h)
  kResult = 6,   // model replica -> engine, once a step (worker/step_codec.h)
  kAck = 7,      // model replica -> engine: it has read the step; a header alone
  kCarried = 8,  // model replica -> model replica: the values carried into its next slice
};

// Opens every message. 80 bytes.
struct MessageHeader {
  uint32_t magic = kMagic;
  uint16_t version = kVersion;
  uint16_t kind = 0;   // MessageKind
  uint64_t epoch = 0;  // of the session: other epochs are refused
  uint64_t step = 0;   // counts from 1 in each epoch, over all micro-batches
  uint32_t layer = 0;  // attention index; kCarried: the receiver's slice; 0 without a tensor
  uint32_t micro_batch = 0;
  uint32_t num_rows = 0;  // tokens in the payload; kPlan, kStep: sequences; kResult: outputs
  uint16_t dtype = 0;     // DType of the tensor payload; 0 without one
  // kOut, kResult: 0, or the StatusCode with which the worker refused the step. Then there is no
  // payload, or in kResult the reason as text.
  uint8_t status = 0;
  uint8_t flags = 0;  // kOut: of the constants above
  uint64_t payload_bytes = 0;
  // kCarried: begin_ns, when it was sent, by the sender's clock.
  // kOut: when attention on this layer began, by the worker's clock; how long it met the cached
  // keys before k and v were there; then waited for them; then finished. For traces and metrics
  // alone.
  int64_t begin_ns = 0;
  int64_t cached_ns = 0;
  int64_t gap_ns = 0;
  int64_t rest_ns = 0;
};
static_assert(sizeof(MessageHeader) == 80);

// What a decoded header must agree with.
struct ExpectedHeader {
  MessageKind kind = MessageKind::kPlan;
  uint64_t epoch = 0;
  uint64_t step = 0;
  uint32_t layer = 0;
  uint32_t micro_batch = 0;
};

// Writes the header to the front of `message`. CHECKs the size.
void encode_header(const MessageHeader& header, std::span<std::byte> message);
// kDataLoss for a message that is too short, has another magic or version, or lies about its
// length; kAborted for an old epoch or a step, layer, kind or micro-batch other than expected.
Result<MessageHeader> decode_header(std::span<const std::byte> message,
                                    const ExpectedHeader& expected);
// The same without a place to agree with: kDataLoss only. For a plan or step, which announces its
// number.
Result<MessageHeader> decode_header(std::span<const std::byte> message);

// In place of a block id: another worker holds the block.
inline constexpr int32_t kNoBlock = -1;

// One sequence's part of a step. `slot` is the engine's handle of the sequence at the workers (a
// small index).
struct SequenceEntry {
  uint32_t slot = 0;
  uint32_t first_position = 0;  // of this step's query tokens: tokens already in the cache
  uint32_t num_tokens = 0;      // query tokens in this step, >= 1
  uint32_t num_new_blocks = 0;  // block ids appended to the slot's table before the step
  uint32_t starts = 0;  // 1: the slot's table is cleared first (a new or recomputed sequence)
};
static_assert(sizeof(SequenceEntry) == 20);

// The StepPlan as an attention worker sees it: changes of block tables and the shape of the step.
// Payload of kPlan: num_rows entries, then u32 num_padded_rows, u32 num_following, u32
// num_released, the released slots, then all new block ids in entry order. Steps are numbered
// through all micro-batches of a worker: plans are applied in that order, since a block may move
// from a sequence of one micro-batch to one of another.
struct AttentionPlan {
  uint64_t step = 0;
  uint32_t micro_batch = 0;
  std::vector<SequenceEntry> sequences;
  std::vector<uint32_t> released_slots;  // slots whose sequence ended or was preempted: their
                                         // tables are cleared first
  std::vector<int32_t> new_blocks;       // concatenated in the order of `sequences`
  // Rows of q, k, v and out as devices send them to each other, those past the tokens' being
  // padding. 0: as many as tokens.
  uint32_t num_padded_rows = 0;
  // Steps after this one, each of another micro-batch, whose slices the model's devices run in turn
  // with this one's: layer by layer, in the order of their micro-batches.
  uint32_t num_following = 0;

  [[nodiscard]] uint32_t num_tokens() const;
};

// Bytes of the encoded plan, header included.
size_t encoded_bytes(const AttentionPlan& plan);
// Encodes header and payload into `message`, which has encoded_bytes(plan) bytes.
void encode_plan(const AttentionPlan& plan, uint64_t epoch, std::span<std::byte> message);

// Bounds a received plan is checked against before anything is sized by it.
struct PlanLimits {
  uint32_t max_micro_batches = 1;
  uint32_t max_sequences = 0;
  uint32_t max_tokens = 0;      // query tokens of a step
  uint32_t max_blocks = 0;      // ids are below
  uint32_t max_new_blocks = 0;  // of a plan; more than max_blocks where other workers hold some
  bool has_holes = false;       // other workers hold some: they are kNoBlock
};
// Reuses the vectors of `plan`. kDataLoss or kAborted as decode_header; kInvalidArgument past a
// limit.
Status decode_plan(std::span<const std::byte> message,
                   uint64_t epoch,
                   const PlanLimits& limits,
                   AttentionPlan& plan);

}  // namespace lamina::wire
