#include "transport/nccl/staging.h"

#include <fmt/format.h>

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

Status Staging::check(const DeviceTransfer& transfer) const {
  const size_t idx = transfer.slot - slots_.first;
  if (transfer.slot < slots_.first || idx >= slots_.capacities.size()) {
    return invalid_argument(fmt::format("slot {} is another channel's", transfer.slot));
  }
  if (transfer.rows.size_bytes() <= slots_.capacities[idx]) return {};
  return invalid_argument(
      fmt::format("{} bytes in a slot of {}", transfer.rows.size_bytes(), slots_.capacities[idx]));
}

std::byte* Staging::place_of(const DeviceTransfer& transfer) const {
  if (!transfer.rows.has_gaps()) return transfer.rows.data;
  LAMINA_CHECK(!offsets_.empty(), "rows with gaps in a channel that was to have none");
  return memory_.data() + offsets_[transfer.slot - slots_.first];
}

}  // namespace lamina::nccl
