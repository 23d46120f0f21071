// HostTrips: round trips of hosts over an endpoint, with a process at its other end, or a thread
// over loopback: one sends, the other answers with as many bytes, as model and attention worker do
// once a layer. A message is written from its sender's own memory and copied out by its receiver,
// so that all backends do the same work. Confined to one thread.
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "transport/endpoint.h"
#include "transport/measure/peer.h"

namespace lamina::measure {

class HostTrips {
 public:
  struct Config {
    TransportKind kind = TransportKind::kShm;
    uint32_t max_bytes = 0;  // of a message
    WaitPolicy wait;         // of both sides
  };

  // Starts the other side. Throws Error: what prepare_endpoint() and PeerProcess throw.
  explicit HostTrips(const Config& config);
  HostTrips(const HostTrips&) = delete;
  HostTrips& operator=(const HostTrips&) = delete;
  ~HostTrips();

  // Microseconds of round trips of 1 to max_bytes each way, sorted, for about `time`.
  // kUnavailable if the peer has left, kDeadlineExceeded if it does not answer, kDataLoss if what
  // came back is not what was sent: nothing more is to be measured then.
  Result<std::vector<double>> times_us(uint32_t size_bytes, Duration time);
  // Null over loopback.
  [[nodiscard]] const PeerProcess* peer() const { return peer_ ? &*peer_ : nullptr; }

 private:
  Result<std::vector<double>> batch(uint32_t size_bytes, uint64_t count);
  Status round_trip(size_t size_bytes);
  void begin_loopback();

  Config config_;
  std::optional<PeerProcess> peer_;
  std::jthread answering_;  // over loopback; outlives the endpoint, which it waits for
  std::unique_ptr<Endpoint> endpoint_;
  std::vector<std::byte> sent_;
  std::vector<std::byte> received_;
  uint64_t seq_ = 0;
};

// The peer's part, until the asking process is done. Throws Error.
void answer_as_host(const PeerRole& role);

}  // namespace lamina::measure
