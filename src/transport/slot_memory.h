// SlotMemory: process-private memory of a set of slots, allocated and touched once at set-up.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

namespace lamina {

// Payloads begin on cache lines, here and in shared regions.
inline constexpr size_t kSlotAlignment = 64;

class SlotMemory {
 public:
  // `prefix_bytes` of room stand before each payload, for a frame's header. Throws std::bad_alloc.
  explicit SlotMemory(std::span<const size_t> capacities, size_t prefix_bytes = 0);

  [[nodiscard]] size_t num_slots() const { return payloads_.size(); }
  // The payload of a slot, its whole capacity.
  [[nodiscard]] std::span<std::byte> payload(size_t slot) const { return payloads_[slot]; }
  // The prefix and the first `payload_bytes` of the payload, contiguous.
  [[nodiscard]] std::span<std::byte> frame(size_t slot, size_t payload_bytes) const {
    return {payloads_[slot].data() - prefix_bytes_, prefix_bytes_ + payload_bytes};
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };

  size_t prefix_bytes_;
  std::unique_ptr<std::byte, Free> bytes_;
  std::vector<std::span<std::byte>> payloads_;
};

}  // namespace lamina
