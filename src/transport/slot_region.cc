#include "transport/slot_region.h"

#include <fmt/format.h>

#include "base/checked_math.h"
#include "base/error.h"
#include "transport/slot_memory.h"

namespace lamina {

size_t SlotRegion::total_bytes(std::span<const size_t> capacities) {
  size_t total = sizeof(RegionHeader) + capacities.size() * sizeof(SlotHeader);
  for (const size_t capacity : capacities) total += round_up(capacity, kSlotAlignment);
  return total;
}

SlotRegion::SlotRegion(std::byte* memory, std::span<const size_t> capacities)
    : total_bytes_(total_bytes(capacities)),
      header_(reinterpret_cast<RegionHeader*>(memory)),
      slots_(reinterpret_cast<SlotHeader*>(memory + sizeof(RegionHeader))) {
  std::byte* next = memory + sizeof(RegionHeader) + capacities.size() * sizeof(SlotHeader);
  for (const size_t capacity : capacities) {
    payloads_.emplace_back(next, capacity);
    next += round_up(capacity, kSlotAlignment);
  }
}

void SlotRegion::initialise(const Token& token) {
  header_->magic = kRegionMagic;
  header_->version = kRegionVersion;
  header_->num_slots = static_cast<uint32_t>(num_slots());
  header_->total_bytes = total_bytes_;
  header_->token = token;
}

void SlotRegion::validate(const Token& token) const {
  if (header_->magic != kRegionMagic || header_->version != kRegionVersion) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("not a slot region of version {}", kRegionVersion));
  }
  if (header_->num_slots != num_slots() || header_->total_bytes != total_bytes_) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("region has {} slots in {} bytes, expected {} in {}",
                            header_->num_slots,
                            header_->total_bytes,
                            num_slots(),
                            total_bytes_));
  }
  if (!equal_constant_time(header_->token, token)) {
    throw Error(StatusCode::kUnauthenticated, "region carries another token than its blob");
  }
}

// The owner stores `sleepers` and then loads the bell, which it compares once more in the kernel;
// the writer changes the bell and then loads `sleepers`: in a total order one of them sees the
// other, so no wake is lost.
void SlotRegion::ring(SlotIdx slot) const {
  SlotHeader& header = slots_[slot];
  header.bell.fetch_add(1, std::memory_order_seq_cst);
  if (header.sleepers.load(std::memory_order_seq_cst) != 0) wake_sleepers(header.bell);
}

void SlotRegion::ring_all() const {
  for (SlotIdx slot = 0; slot < num_slots(); ++slot) {
    slots_[slot].bell.fetch_add(1, std::memory_order_seq_cst);
    wake_sleepers(slots_[slot].bell);
  }
}

FutexWord SlotRegion::begin_sleep(SlotIdx slot) const {
  SlotHeader& header = slots_[slot];
  header.sleepers.store(1, std::memory_order_seq_cst);
  return {.word = &header.bell, .seen = header.bell.load(std::memory_order_seq_cst)};
}

void SlotRegion::end_sleep(SlotIdx slot) const {
  slots_[slot].sleepers.store(0, std::memory_order_relaxed);
}

}  // namespace lamina
