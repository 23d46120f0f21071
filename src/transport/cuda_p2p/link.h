// Link: two processes of a host whose devices write each other's messages: each has an inbox, which
// the other has mapped. Set up over a UNIX socket, then no more than memory: what sends and
// receives are kernels (launch.h), or a CPU (host_messages.h). Confined to one thread.
//
// Between GPUs inboxes lie in the receiver's GPU memory; where a CPU is at one end, or GPUs cannot
// reach each other, in pinned host memory.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "transport/blob.h"
#include "transport/cuda_p2p/shared_memory.h"
#include "transport/cuda_p2p/slots.h"

namespace lamina::cuda_p2p {

enum class Place : uint32_t { kGpuMemory, kHostMemory };

// Both sides fill one in from the same configuration.
struct LinkConfig {
  PeerId self;
  PeerId peer;
  Token token{};  // of this link, from the control plane: the other side has to know it
  Device device{};
  Place place = Place::kGpuMemory;
  std::vector<uint32_t> receive_slots;  // capacity in bytes of each of our slots
  std::vector<uint32_t> send_slots;     // and of each of the peer's
  Limits limits{};
};

class Link {
 public:
  // `socket` is connected to the peer (SOCK_SEQPACKET), and not used afterwards: its end tells of
  // the peer's. Throws Error: what SharedMemory throws; kUnauthenticated for another peer, epoch or
  // token; kInvalidArgument for other slots or limits; kDeadlineExceeded; kUnavailable.
  Link(const LinkConfig& config, int socket, Deadline deadline);

  // Our slots, and the peer's, as our device reaches them. Kernels that use them have ended before
  // the link goes.
  [[nodiscard]] const SlotView& inbox(SlotIdx slot) const { return inbox_slots_[slot]; }
  [[nodiscard]] const SlotView& outbox(SlotIdx slot) const { return outbox_slots_[slot]; }
  [[nodiscard]] Place place() const { return place_; }
  // Of a message to either side.
  [[nodiscard]] Plan plan(uint32_t size_bytes) const { return make_plan(size_bytes, limits_); }

  // Before a new epoch, when neither side sends: forgets what was received.
  [[nodiscard]] Status clear_inbox() { return inbox_->clear(); }

 private:
  Place place_;
  Limits limits_;
  std::unique_ptr<SharedMemory> inbox_;
  std::unique_ptr<SharedMemory> outbox_;
  std::vector<SlotView> inbox_slots_;
  std::vector<SlotView> outbox_slots_;
};

}  // namespace lamina::cuda_p2p
