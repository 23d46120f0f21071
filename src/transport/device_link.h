// DeviceLink and DeviceChannel: what the devices at both ends of an endpoint send each other
// without their hosts. A link belongs to an endpoint and leads to one peer; a channel is one
// stream's use of the links of its device, all of one backend: it sends, receives, bounds what is
// waited for and says why waits ended. Workers have a channel for each micro-batch.
//
// Messages are rows of matrices, without headers; both sides know their sizes and their order
// beforehand. On a GPU calls enqueue and return, and may be captured in graphs, which go before
// their channel; on a CPU they do their work before they return.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/clock.h"
#include "base/status.h"
#include "device/stream.h"
#include "transport/endpoint.h"

namespace lamina {

// Messages of one launch.
inline constexpr size_t kMaxLaunchMessages = 16;
// Bytes that rows are multiples of, and lie at: what devices read and write at once.
inline constexpr size_t kDeviceRowAlignment = 16;

// A matrix in the device's memory: what a message is made of, or where it goes.
struct DeviceRows {
  std::byte* data = nullptr;
  size_t num_rows = 0;
  size_t row_bytes = 0;
  size_t stride_bytes = 0;  // from row to row

  [[nodiscard]] size_t size_bytes() const { return num_rows * row_bytes; }
  [[nodiscard]] bool has_gaps() const { return num_rows > 1 && stride_bytes != row_bytes; }
};

struct DeviceTransfer {
  size_t link_idx = 0;  // among the channel's
  SlotIdx slot = 0;     // of the receiving side
  DeviceRows rows;
  uint32_t use = 0;  // the step's messages of a slot are counted from 1
};

// A message that is a partial of attention: out [rows, D] f32, then lse [rows] f32, natural log, of
// the rows (token, head) of all tokens and of the sender's heads. lse = -inf: a row without keys.
struct DevicePartial {
  size_t link_idx = 0;
  SlotIdx slot = 0;
  uint32_t head_begin = 0;  // of those that are merged
  uint32_t head_end = 0;
};
[[nodiscard]] constexpr uint32_t partial_bytes(uint32_t num_rows, uint32_t value_dim) {
  return num_rows * (value_dim + 1) * static_cast<uint32_t>(sizeof(float));
}

// Partials to fold into one output, in their order.
struct DeviceMerge {
  std::span<const DevicePartial> partials;  // 1 to kMaxLaunchMessages
  uint32_t use = 0;
  uint32_t num_tokens = 0;
  uint32_t num_heads = 0;
  uint32_t head_dim = 0;
  const float* sinks =
      nullptr;              // [num_heads] in the device's memory: scores of a key without a value
  void* out = nullptr;      // [num_tokens, num_heads, head_dim], f32 or bf16
  uint32_t out_stride = 0;  // elements between tokens
  bool out_is_bf16 = false;
};

// Confined to one thread, but for abort().
class DeviceChannel {
 public:
  virtual ~DeviceChannel() = default;
  DeviceChannel(const DeviceChannel&) = delete;
  DeviceChannel& operator=(const DeviceChannel&) = delete;

  // 1 to kMaxLaunchMessages messages, in one launch where the backend can. Nothing waits on the
  // host of a GPU; a CPU's receive() waits. After a wait has failed nothing is sent, and what was
  // received is not to be used: status() tells.
  [[nodiscard]] virtual Status send(std::span<const DeviceTransfer> transfers) = 0;
  [[nodiscard]] virtual Status receive(std::span<const DeviceTransfer> transfers) = 0;
  // Heads of no partial are left as they are. kUnimplemented where the backend cannot.
  [[nodiscard]] virtual Status receive_merged(const DeviceMerge& /*merge*/) {
    return unimplemented("merging outputs of devices on this transport");
  }
  // Where the device may read a message that receive() has waited for without moving it, until the
  // reply is sent; null if it has to be moved. Such a place as the rows of a transfer is left
  // alone.
  [[nodiscard]] virtual std::byte* place_of(size_t /*link_idx*/,
                                            SlotIdx /*slot*/,
                                            size_t /*size_bytes*/) const {
    return nullptr;
  }
  // After a step's messages, up to `num_messages` of a slot.
  [[nodiscard]] virtual Status end_step(uint32_t num_messages) = 0;
  // Of a CPU: whether the message to receive has begun to come. Never blocks.
  [[nodiscard]] virtual bool has_begun(const DeviceTransfer& transfer) const = 0;

  // From any thread: all waits end soon, also those to come. It happens by itself when a peer's
  // process leaves and when an endpoint is aborted, on either side.
  virtual void abort() = 0;
  [[nodiscard]] virtual bool is_aborted() const = 0;
  // Once the stream was waited for: ok, or why a wait has failed. kDeadlineExceeded; kUnavailable:
  // aborted; kDataLoss: a message of another size than agreed on.
  [[nodiscard]] virtual Status status() const = 0;

 protected:
  DeviceChannel() = default;
};

struct DeviceChannelConfig {
  size_t idx = 0;  // among those of the links: the peers' of the same index is at the other end
  StreamView stream;
  // Beyond this a wait fails. A peer's death is noticed sooner: this is for what its socket cannot
  // tell. A backend whose devices cannot bound one wait bounds a step.
  Duration max_wait{};
  // No rows have gaps: no memory is needed to pack them.
  bool is_packed = false;
  // Other streams of the device compute meanwhile: as little of it as can be waits.
  bool shares_device = false;
};

class DeviceLink {
 public:
  virtual ~DeviceLink() = default;
  DeviceLink(const DeviceLink&) = delete;
  DeviceLink& operator=(const DeviceLink&) = delete;

  // A channel over `links`, which are all of this one's backend, include it and outlive the
  // channel. Each index once. Throws Error: kResourceExhausted, kUnavailable.
  virtual std::unique_ptr<DeviceChannel> open_channel(std::span<DeviceLink* const> links,
                                                      const DeviceChannelConfig& config) = 0;
  // From any thread: both sides' channels are aborted.
  virtual void abort() noexcept = 0;

 protected:
  DeviceLink() = default;
};

}  // namespace lamina
