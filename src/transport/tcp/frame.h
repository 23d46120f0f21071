// Frames of the tcp backend: a fixed header, then the payload, which is received straight into the
// memory of its slot. FrameReceiver is the parser as a state machine without a socket: it says
// where the next bytes belong and is told how many came. Everything from a socket is hostile.
// Confined to one thread. docs/wire.md draws the layout.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "transport/endpoint.h"
#include "transport/slot_memory.h"

namespace lamina {

inline constexpr uint32_t kFrameMagic = 0x464E4D4C;  // "LMNF"

struct FrameHeader {
  uint32_t magic = kFrameMagic;
  uint32_t slot = 0;
  uint64_t seq = 0;
  uint64_t payload_bytes = 0;
};
static_assert(sizeof(FrameHeader) == 24);

class FrameReceiver {
 public:
  explicit FrameReceiver(std::span<const size_t> capacities);

  // Where the next bytes of the stream belong. Never empty.
  [[nodiscard]] std::span<std::byte> want();
  // The first `size_bytes` bytes of want() were written. The header of a frame that became whole,
  // if one did; kDataLoss for a header that cannot be: the stream is lost then.
  Result<std::optional<FrameHeader>> advance(size_t size_bytes);

  [[nodiscard]] std::span<const std::byte> payload(SlotIdx slot) const {
    return memory_.payload(slot);
  }
  // Whether the stream stands inside a frame.
  [[nodiscard]] bool is_mid_frame() const { return done_bytes_ > 0 || in_payload_; }

 private:
  [[nodiscard]] Status check_header() const;

  SlotMemory memory_;
  std::vector<uint64_t> last_seqs_;  // of each slot
  FrameHeader header_;
  bool in_payload_ = false;
  size_t done_bytes_ = 0;  // of the header, or of the payload
};

}  // namespace lamina
