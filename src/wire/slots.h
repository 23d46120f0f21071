// Slots of an endpoint between a model worker and an attention worker: their numbers and sizes,
// derived by both sides from the same session configuration. Each micro-batch has its own. Kinds
// alternate by layer parity, so that a slot is free again when its next message is due (the reply
// to layer l acknowledges what was sent for it).
//
// Replicas that take turns have an endpoint each, and a slot there may get every message of its
// kind, where they run all even layers, say. It is free nevertheless. At the attention worker: who
// sends for layer m has had the output of layer m - 1 from there, and that of layer l < m left
// after l was read. At the model worker: the output of layer m answers a q that was sent when slice
// m had begun, so after slice l + 1, whoever ran those between, and that began by reading the
// output of l. Steps follow each other by way of the engine.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/dtype.h"
#include "wire/messages.h"

namespace lamina::wire {

// What sizes depend on. Heads are those of this attention worker.
struct SlotGeometry {
  uint32_t num_micro_batches = 1;
  uint32_t max_tokens = 0;  // query tokens of a step
  uint32_t max_sequences = 0;
  uint32_t num_blocks = 0;  // of the session: a plan names those that others hold, too
  uint32_t num_heads = 0;
  uint32_t num_kv_heads = 0;
  uint32_t head_dim = 0;       // of q and k
  uint32_t value_dim = 0;      // of v and out
  bool latent = false;         // k alone travels
  DType dtype = DType::kBF16;  // of q, k, v on the wire
  DType out_dtype = DType::kBF16;
  bool may_be_partial = false;  // the worker may lack blocks: out may travel as f32 with its lse
};

// Slots of the attention worker (plan, q, kv) and of the model worker (out).
std::vector<size_t> attention_worker_slots(const SlotGeometry& geometry);
std::vector<size_t> model_worker_slots(const SlotGeometry& geometry);

// What devices send each other by themselves (transport/cuda_p2p), without headers: rows of a
// layer's tensors. The slots of either side's device, and their numbers; the same parities.
enum class DeviceMessage : uint8_t { kQ, kK, kV, kOut };
std::vector<uint32_t> attention_device_slots(const SlotGeometry& geometry);
std::vector<uint32_t> model_device_slots(const SlotGeometry& geometry);
uint32_t device_slot_of(DeviceMessage kind, uint32_t micro_batch, uint32_t layer);
// Plans and refusals alone pass between the hosts then: the geometry of their slots.
[[nodiscard]] constexpr SlotGeometry without_tensors(SlotGeometry geometry) {
  geometry.max_tokens = 0;
  return geometry;
}

// Of a message that says that nothing will come any more: above every other.
inline constexpr uint64_t kRefusalSeq = uint64_t{1} << 62;

// Slot number of a message at its receiver.
uint32_t slot_of(MessageKind kind, uint32_t micro_batch, uint32_t layer);
// Sequence number of a message in its slot: grows with (step, layer).
uint64_t sequence_number(uint64_t step, uint32_t layer, uint32_t num_layers);

}  // namespace lamina::wire
