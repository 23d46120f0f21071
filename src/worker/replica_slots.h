// Slots of the endpoints of a model replica: from and to the engine, and between replicas; each
// micro-batch has its own. Both sides size them from the same limits.
#pragma once

#include <cstdint>
#include <vector>

#include "convert/sliced_model.h"
#include "exec/memory_plan.h"
#include "transport/endpoint.h"
#include "worker/step_codec.h"

namespace lamina {

// Of a message that says that nothing will come any more: above every other.
inline constexpr uint64_t kFailureSeq = uint64_t{1} << 62;

// At the replica, from the engine.
inline SlotIdx step_slot(int32_t micro_batch) {
  return static_cast<SlotIdx>(micro_batch);
}
// At the engine, from a replica.
inline SlotIdx ack_slot(int32_t micro_batch) {
  return 2 * static_cast<SlotIdx>(micro_batch);
}
inline SlotIdx result_slot(int32_t micro_batch) {
  return 2 * static_cast<SlotIdx>(micro_batch) + 1;
}
// At a replica, from another: what slice `slice_idx` starts from. Two, by parity: the next is under
// way when this one has been read.
inline SlotIdx carried_slot(int32_t micro_batch, int32_t slice_idx) {
  return 2 * static_cast<SlotIdx>(micro_batch) + static_cast<SlotIdx>(slice_idx % 2);
}

// The same between devices, without headers: a slot for each value of what a slice starts from. One
// is enough: the sender's next slice begins with what came of the slice that the receiver ran with
// the values before, so that those have been read.
struct CarriedSlots {
  std::vector<uint32_t> value_bytes;  // the most, of each place among a slice's carried values

  // Throws Error: kUnimplemented for rows that devices do not send, kInvalidArgument.
  static CarriedSlots of(const SlicedModel& model, const StepLimits& limits);

  [[nodiscard]] std::vector<uint32_t> all(int32_t num_micro_batches) const;
  [[nodiscard]] SlotIdx slot_of(int32_t micro_batch, size_t value_idx) const {
    return static_cast<SlotIdx>(static_cast<size_t>(micro_batch) * value_bytes.size() + value_idx);
  }
};

std::vector<size_t> replica_slots_for_engine(const StepCodecLimits& limits);
std::vector<size_t> engine_slots_for_replica(const StepCodecLimits& limits);
std::vector<size_t> replica_slots_for_replica(int32_t num_micro_batches, size_t max_carried_bytes);

}  // namespace lamina
