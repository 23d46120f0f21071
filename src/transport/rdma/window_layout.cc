#include "transport/rdma/window_layout.h"

#include <algorithm>

#include "base/checked_math.h"

namespace lamina::rdma {

WindowLayout::WindowLayout(std::span<const uint32_t> to_listener,
                           std::span<const uint32_t> to_connector)
    : num_to_listener_(to_listener.size()) {
  size_t end = 0;
  for (const std::span<const uint32_t> capacities : {to_listener, to_connector}) {
    for (const uint32_t capacity : capacities) {
      offsets_.push_back(end);
      end += sizeof(MessageHeader) + round_up(size_t{capacity}, alignof(MessageHeader));
    }
  }
  size_bytes_ = round_up(end, kWindowAlignment);
}

size_t WindowLayout::max_slots() const {
  return std::max(num_to_listener_, offsets_.size() - num_to_listener_);
}

}  // namespace lamina::rdma
