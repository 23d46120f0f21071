#include "transport/nccl/staging.h"

#include "base/check.h"
#include "base/checked_math.h"

namespace lamina::nccl {
namespace {

// Of a slot's place, as NCCL copies fastest.
constexpr size_t kAlignment = 256;

}  // namespace

Staging::Staging(DeviceKind device, const NcclLink::Slots& slots, bool is_packed) : slots_(slots) {
  if (is_packed) return;
  size_t size_bytes = 0;
  for (const uint32_t capacity : slots.capacities) {
    offsets_.push_back(size_bytes);
    size_bytes += round_up(size_t{capacity}, kAlignment);
  }
  memory_ = Buffer(memory_of(device), size_bytes);
}

std::byte* Staging::place_of(const DeviceTransfer& transfer) const {
  if (!transfer.rows.has_gaps()) return transfer.rows.data;
  LAMINA_CHECK(!offsets_.empty(), "rows with gaps in a channel that was to have none");
  return memory_.data() + offsets_[transfer.slot - slots_.first];
}

}  // namespace lamina::nccl
