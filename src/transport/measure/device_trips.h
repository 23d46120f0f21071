// DeviceTrips: round trips of two devices over a link that they use by themselves, the one of this
// process, the other of a peer: GPUs, or threads of CPUs, which poll. Confined to one thread.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "transport/measure/device_end.h"
#include "transport/measure/peer.h"
#include "transport/peer_watch.h"

namespace lamina::measure {

class DeviceTrips {
 public:
  struct Config {
    Device ours;
    Device peers;
    uint32_t max_bytes = 0;  // of a message
  };

  // Starts the other side. Between GPUs messages lie in GPU memory, else in that of the host.
  // Throws Error: what Link, Buffer and PeerProcess throw.
  explicit DeviceTrips(const Config& config);
  DeviceTrips(const DeviceTrips&) = delete;
  DeviceTrips& operator=(const DeviceTrips&) = delete;
  ~DeviceTrips() = default;

  // Microseconds of round trips of 1 to max_bytes each way, sorted, for about `time`; in a graph of
  // the mean of its own each. The error of either side, after which nothing more is to be measured.
  Result<std::vector<double>> times_us(const TripKind& kind, uint32_t size_bytes, Duration time);
  [[nodiscard]] const PeerProcess& peer() const { return peer_; }

 private:
  PeerProcess peer_;
  std::unique_ptr<DeviceEnd> end_;
  PeerWatch watch_;
  uint32_t max_bytes_;
  uint32_t epoch_ = 0;
};

std::unique_ptr<DeviceEnd> make_device_end(const DeviceEndConfig& config, int socket);

// The peer's part, until the asking process has left. Throws Error kUnavailable then.
void answer_as_device(const PeerRole& role);

// Whether each of two GPUs may write the other's memory. False in a build without CUDA.
bool can_reach_each_other(Device a, Device b);

}  // namespace lamina::measure
