// The peer's main: the process at the other end of a measurement, which answers until the asking
// process is done with it or gone. PeerRole is the first that it is sent.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "device/device.h"
#include "transport/cuda_p2p/link.h"
#include "transport/endpoint.h"
#include "transport/measure/peer_process.h"

namespace lamina::measure {

inline constexpr std::string_view kPeerArgument = "transport-peer";
// No wait for a message is longer, nor one for the other side to be ready.
inline constexpr Duration kMaxWait = std::chrono::seconds(10);
inline constexpr Duration kSetUpTime = std::chrono::seconds(60);

struct PeerRole {
  bool is_device = false;  // answers as a device of a link, else as a host over an endpoint
  uint32_t max_bytes = 0;  // of a message
  // Of a host.
  TransportKind transport = TransportKind::kShm;
  WaitPolicy wait;
  // Of a device.
  Device device;
  cuda_p2p::Place place = cuda_p2p::Place::kHostMemory;
};

// For a main() that was started with kPeerArgument. The exit code; what failed is told on standard
// error.
int run_peer();

}  // namespace lamina::measure
