#include "transport/slot_memory.h"

#include <cstring>
#include <new>

#include "base/checked_math.h"

namespace lamina {

SlotMemory::SlotMemory(std::span<const size_t> capacities, size_t prefix_bytes)
    : prefix_bytes_(prefix_bytes) {
  const size_t lead = round_up(prefix_bytes, kSlotAlignment);
  size_t total = kSlotAlignment;
  for (const size_t capacity : capacities) total += lead + round_up(capacity, kSlotAlignment);
  bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(kSlotAlignment, total)));
  if (bytes_ == nullptr) throw std::bad_alloc();
  std::memset(bytes_.get(), 0, total);  // page faults belong to set-up
  std::byte* next = bytes_.get();
  for (const size_t capacity : capacities) {
    payloads_.emplace_back(next + lead, capacity);
    next += lead + round_up(capacity, kSlotAlignment);
  }
}

}  // namespace lamina
