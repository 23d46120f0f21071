// WindowLayout: where the messages of a channel lie in the window of either side. Both windows are
// alike: a place for each slot of the listener, then for each of the connector. A message is put
// together at its place in the sender's window and goes to the same place of the receiver's. Plain
// values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lamina::rdma {

// Of a window's memory, as NCCL wants it.
inline constexpr size_t kWindowAlignment = 4096;

// At the beginning of a place; the message follows.
struct alignas(128) MessageHeader {
  uint64_t num_chunks;
};

class WindowLayout {
 public:
  // Of the capacities of both sides' receiving slots.
  WindowLayout(std::span<const uint32_t> to_listener, std::span<const uint32_t> to_connector);

  // From the window's beginning to the header of a receiving slot of a side.
  [[nodiscard]] size_t offset(bool to_listener, size_t slot_idx) const {
    return offsets_[to_listener ? slot_idx : num_to_listener_ + slot_idx];
  }
  // A whole number of what NCCL registers.
  [[nodiscard]] size_t size_bytes() const { return size_bytes_; }
  // Slots of the side that has more.
  [[nodiscard]] size_t max_slots() const;

 private:
  size_t num_to_listener_;
  std::vector<size_t> offsets_;
  size_t size_bytes_;
};

}  // namespace lamina::rdma
