#include "worker/replica_slots.h"

#include "wire/messages.h"

namespace lamina {

std::vector<size_t> replica_slots_for_engine(const StepCodecLimits& limits) {
  return std::vector<size_t>(static_cast<size_t>(limits.max_micro_batches), max_step_bytes(limits));
}

std::vector<size_t> engine_slots_for_replica(const StepCodecLimits& limits) {
  std::vector<size_t> slots;
  for (int32_t i = 0; i < limits.max_micro_batches; ++i) {
    slots.push_back(sizeof(wire::MessageHeader));
    slots.push_back(max_result_bytes(limits));
  }
  return slots;
}

std::vector<size_t> replica_slots_for_replica(int32_t num_micro_batches, size_t max_carried_bytes) {
  return std::vector<size_t>(2 * static_cast<size_t>(num_micro_batches),
                             sizeof(wire::MessageHeader) + max_carried_bytes);
}

}  // namespace lamina
