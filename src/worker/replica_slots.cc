#include "worker/replica_slots.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "wire/messages.h"
#include "worker/device_transfers.h"

namespace lamina {

CarriedSlots CarriedSlots::of(const SlicedModel& model, const StepLimits& limits) {
  CarriedSlots slots;
  for (const Slice& slice : model.slices) {
    slots.value_bytes.resize(std::max(slots.value_bytes.size(), slice.carried_out.size()));
    for (size_t i = 0; i < slice.carried_out.size(); ++i) {
      const ValueType& type = model.graph.type(slice.carried_out[i]);
      throw_if_error(check_message_rows("carried values", static_cast<size_t>(type.row_bytes())));
      const int64_t rows =
          type.rows == RowAxis::kTokens ? limits.max_tokens : limits.max_logits_rows;
      const int64_t bytes = rows * type.row_bytes();
      if (bytes > std::numeric_limits<uint32_t>::max()) {
        throw Error(StatusCode::kInvalidArgument,
                    fmt::format("{} bytes of a carried value in a message between devices", bytes));
      }
      slots.value_bytes[i] = std::max(slots.value_bytes[i], static_cast<uint32_t>(bytes));
    }
  }
  return slots;
}

std::vector<uint32_t> CarriedSlots::all(int32_t num_micro_batches) const {
  std::vector<uint32_t> slots;
  for (int32_t i = 0; i < num_micro_batches; ++i) {
    slots.insert(slots.end(), value_bytes.begin(), value_bytes.end());
  }
  return slots;
}

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
