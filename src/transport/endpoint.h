// Endpoint: the data plane between two processes (or threads), pairwise and one-sided: put bytes
// into the peer's registered slot, then raise a sequence number there; the receiver polls or waits
// on that number. Nothing is allocated, registered or logged on the step path. A transport moves
// bytes of a memory kind; it knows no tensor, layer or model.
//
// Slots are numbered by the owner of the receiving side and sized at set-up. A slot may be written
// again only after the receiver is known to be done with it: in Lamina the reply to a request is
// that knowledge, and kinds alternate between two slots by layer parity. Sequence numbers of one
// slot only grow.
//
// Confined to one thread, but for abort(), which any thread may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "device/device.h"

namespace lamina {

using SlotIdx = uint32_t;

class DeviceLink;
class HostEndpoint;

// Who is at the other end. A new epoch for every incarnation of a session; old epochs are refused
// at connection.
struct PeerId {
  uint64_t id = 0;
  uint64_t epoch = 0;

  friend bool operator==(const PeerId&, const PeerId&) = default;
};

enum class PollResult : uint8_t {
  kReady,    // the slot holds a message of sequence number >= the one asked for
  kPending,  // not yet
  kDown,     // the peer is gone, the endpoint was aborted, or it sent something malformed; what
             // arrived whole before a peer left is still kReady
};

// How an outer loop waits: poll for `spin`, then block in the kernel. Two busy-polling processes on
// shared cores collapse, so the spin is short and bounded.
struct WaitPolicy {
  Duration spin = std::chrono::microseconds(20);
};

class Endpoint {
 public:
  virtual ~Endpoint() = default;
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  // Memory in which to compose the next message for the peer's `slot`: the slot itself where it is
  // mapped here, a send buffer otherwise. Valid until commit(). CHECKs slot and size against the
  // configuration (a bug if they do not fit: sizes are planned at start).
  virtual std::span<std::byte> stage(SlotIdx slot, size_t size_bytes) = 0;
  // Publishes what stage() returned under sequence number `seq` > every earlier one of that slot:
  // the peer sees `seq` only after all `size_bytes` bytes. Does not block; what a socket does not
  // take at once is sent by later polls. kUnavailable if the peer is down.
  virtual Status commit(SlotIdx slot, size_t size_bytes, uint64_t seq) = 0;
  // stage, copy, commit.
  Status put(SlotIdx slot, std::span<const std::byte> payload, uint64_t seq);

  // Never blocks. Also drives sending where a backend needs driving.
  virtual PollResult poll(SlotIdx slot, uint64_t seq) = 0;
  // Whether bytes of a committed message have not been taken by the socket yet. poll() sends them,
  // and so does send_unsent(), which never blocks and costs nothing where there are none.
  [[nodiscard]] virtual bool has_unsent() const { return false; }
  virtual void send_unsent() {}
  // Blocks until poll() is not pending, at most until `deadline`: kDeadlineExceeded, or
  // kUnavailable when down.
  virtual Status wait(SlotIdx slot, uint64_t seq, Deadline deadline, WaitPolicy policy) = 0;
  // The message in `slot` after poll() said kReady: its bytes and its sequence number. Valid until
  // the sender is told, by whatever we send next, that we are done. Hostile input: its content must
  // be validated by the caller.
  [[nodiscard]] virtual std::span<const std::byte> payload(SlotIdx slot) const = 0;
  [[nodiscard]] virtual uint64_t received_seq(SlotIdx slot) const = 0;

  // From any thread: every current and later poll and wait gives kDown. Used when liveness is lost
  // elsewhere.
  virtual void abort() = 0;
  // After a death: revokes and unmaps what the peer could still write to. The endpoint is down
  // afterwards, and payload() is empty; memory that was handed out before stays valid, with any
  // content, as long as the endpoint. Idempotent.
  virtual void fence_peer() = 0;
  [[nodiscard]] virtual PeerId peer() const = 0;
  // For wait_any(): the form of the endpoint on which a thread can block. Null: nothing may ever
  // wait on it, as in a simulation.
  virtual HostEndpoint* as_host_endpoint() { return nullptr; }
  // What the devices at both ends send each other without their hosts (device_link.h). Null on
  // backends of hosts alone.
  virtual DeviceLink* device_link() { return nullptr; }

 protected:
  Endpoint() = default;
};

enum class TransportKind : uint8_t { kLoopback, kShm, kTcp, kCudaP2p, kNccl };
// "loopback", "shm", "tcp", "cuda_p2p", "nccl".
std::string_view transport_name(TransportKind kind);
// Whether its endpoints have a device_link(): hosts say what a step is, and no more.
[[nodiscard]] constexpr bool has_device_links(TransportKind kind) {
  return kind == TransportKind::kCudaP2p || kind == TransportKind::kNccl;
}

// Both sides fill one in from the same configuration.
struct EndpointConfig {
  TransportKind kind = TransportKind::kTcp;
  PeerId self;
  PeerId peer;
  std::vector<size_t> receive_slots;  // capacity in bytes of each of our slots
  std::vector<size_t> send_slots;     // and of each of the peer's
  bool listens =
      false;  // tcp, cuda_p2p, nccl: this side listens (the attention worker), the other connects
  std::string host = "127.0.0.1";  // tcp, nccl: address to listen on, or to connect to
  // Of backends with device links: this side's device, and the slots of messages between devices,
  // at least one in all; as many for each channel (DeviceChannel) as for any other.
  Device device{};
  uint32_t num_device_channels = 1;
  std::vector<uint32_t> device_receive_slots = {};
  std::vector<uint32_t> device_send_slots = {};
};

// One side of an endpoint being set up. Blobs travel on the control plane, which authenticates
// them: each side makes a PendingEndpoint, gives its blob to the other, and completes with the
// other's blob. The blob carries a random token that the data connection must present.
class PendingEndpoint {
 public:
  virtual ~PendingEndpoint() = default;
  [[nodiscard]] virtual const std::string& blob() const = 0;
  // Consumes this object. Throws Error: kInvalidArgument for a blob that does not fit the
  // configuration, kDeadlineExceeded, kUnavailable, kUnauthenticated (wrong token or epoch from the
  // other side).
  virtual std::unique_ptr<Endpoint> complete(const std::string& peer_blob, Deadline deadline) = 0;
};

// Throws Error: kInvalidArgument, kResourceExhausted (shared memory), kUnavailable (cannot listen).
std::unique_ptr<PendingEndpoint> prepare_endpoint(const EndpointConfig& config);

}  // namespace lamina
