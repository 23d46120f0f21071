// TcpEndpoint: an endpoint over one connected, non-blocking socket. Messages are composed in a
// buffer per slot and leave in the order of their commits; those that the socket does not take at
// once wait in a queue of at most one message per slot. Confined to one thread, but for abort().
// `nccl` adds what devices send each other.
#pragma once

#include <vector>

#include "base/file.h"
#include "transport/host_endpoint.h"
#include "transport/tcp/frame.h"
#include "transport/wake_flag.h"

namespace lamina {

class TcpEndpoint : public HostEndpoint {
 public:
  // Takes a connection that has been introduced.
  TcpEndpoint(const EndpointConfig& config, FileHandle socket);

  [[nodiscard]] bool has_unsent() const override { return is_up() && num_unsent_ > 0; }
  void send_unsent() override {
    if (has_unsent()) send_some();
  }
  WakeSource begin_sleep(SlotIdx slot) override;
  void end_sleep(SlotIdx /*slot*/) override {}
  void check_peer() override {}  // the kernel closes a dead peer's connection

 protected:
  void wake() override { wake_event_.signal(); }
  void revoke() override;

 private:
  // A committed frame that has not left, or not all of it.
  struct Unsent {
    SlotIdx slot = 0;
    std::span<const std::byte> rest;
  };

  std::span<std::byte> send_memory(SlotIdx slot) override;
  void publish(SlotIdx slot, size_t size_bytes, uint64_t seq) override;
  void advance(SlotIdx slot, uint64_t seq) override;
  [[nodiscard]] std::span<const std::byte> receive_memory(SlotIdx slot) const override {
    return receiver_.payload(slot);
  }

  void send_some();
  void receive_until(SlotIdx slot, uint64_t seq);
  // One read; false when the socket has nothing more.
  bool receive_some();

  FileHandle socket_;
  EventFd wake_event_;  // signalled once, for ever: an aborted endpoint is never waited on again
  SlotMemory send_memory_;
  FrameReceiver receiver_;
  // Ring: first_unsent_ is the oldest of num_unsent_.
  std::vector<Unsent> unsent_;
  size_t first_unsent_ = 0;
  size_t num_unsent_ = 0;
};

}  // namespace lamina
