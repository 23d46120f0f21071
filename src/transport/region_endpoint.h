// RegionEndpoint: an endpoint over two mapped regions, ours that the peer writes and the peer's
// that we write. The backends `loopback` and `shm` differ only in where the memory comes from;
// `cuda_p2p` adds what devices send each other.
#pragma once

#include <memory>

#include "transport/host_endpoint.h"
#include "transport/slot_region.h"

namespace lamina {

class RegionEndpoint : public HostEndpoint {
 public:
  // `own` was initialised, `peers` was validated.
  RegionEndpoint(const EndpointConfig& config,
                 std::unique_ptr<RegionMemory> own,
                 std::unique_ptr<RegionMemory> peers);
  RegionEndpoint(const RegionEndpoint&) = delete;
  RegionEndpoint& operator=(const RegionEndpoint&) = delete;
  ~RegionEndpoint() override;

  WakeSource begin_sleep(SlotIdx slot) override { return receive_.begin_sleep(slot); }
  void end_sleep(SlotIdx slot) override { receive_.end_sleep(slot); }
  void check_peer() override;

 protected:
  void wake() override { receive_.ring_all(); }
  void revoke() override;

 private:
  std::span<std::byte> send_memory(SlotIdx slot) override { return send_.payload(slot); }
  void publish(SlotIdx slot, size_t size_bytes, uint64_t seq) override;
  void advance(SlotIdx slot, uint64_t seq) override;
  [[nodiscard]] std::span<const std::byte> receive_memory(SlotIdx slot) const override {
    return receive_.payload(slot);
  }

  // Records the newest message of a slot; breaks the endpoint if its header lies.
  void read_slot(SlotIdx slot);
  void read_all_slots();
  void tell_peer_we_left();

  std::vector<size_t> send_capacities_;
  std::unique_ptr<RegionMemory> own_;
  std::unique_ptr<RegionMemory> peers_;
  // Keeps its first address for ever: abort() reads it from other threads.
  const SlotRegion receive_;
  SlotRegion send_;
};

}  // namespace lamina
