// HostEndpoint: what the host-memory backends have in common: the checks of the contract, the
// record of what was received, and when an endpoint is down. A backend adds how bytes move and what
// wakes a thread that sleeps until they do. Confined to one thread, but for abort().
#pragma once

#include <atomic>
#include <string>
#include <variant>
#include <vector>

#include "transport/endpoint.h"
#include "transport/kernel_wait.h"

namespace lamina {

// Descriptors that have an event when a socket has news or its endpoint is aborted.
struct WakeDescriptors {
  int socket = -1;
  short socket_events = 0;  // as in pollfd
  int abort_event = -1;     // POLLIN
};

// What ends a sleep when an endpoint has news.
using WakeSource = std::variant<FutexWord, WakeDescriptors>;

class HostEndpoint : public Endpoint {
 public:
  std::span<std::byte> stage(SlotIdx slot, size_t size_bytes) final;
  Status commit(SlotIdx slot, size_t size_bytes, uint64_t seq) final;
  PollResult poll(SlotIdx slot, uint64_t seq) final;
  Status wait(SlotIdx slot, uint64_t seq, Deadline deadline, WaitPolicy policy) final;
  [[nodiscard]] std::span<const std::byte> payload(SlotIdx slot) const final;
  [[nodiscard]] uint64_t received_seq(SlotIdx slot) const final;
  void abort() final;
  void fence_peer() final;
  [[nodiscard]] PeerId peer() const final { return peer_; }
  HostEndpoint* as_host_endpoint() final { return this; }

  // For wait_any(), which calls, for all that it awaits: begin_sleep(), then poll(), then sleeps if
  // that was pending, then end_sleep(). Whatever concerns `slot` and was not there at that poll(),
  // abort() included, ends the sleep. begin_sleep() is not called when down.
  virtual WakeSource begin_sleep(SlotIdx slot) = 0;
  virtual void end_sleep(SlotIdx slot) = 0;
  // Notices a peer that died without a word, where nothing else tells. May be a system call.
  virtual void check_peer() = 0;

 protected:
  explicit HostEndpoint(const EndpointConfig& config);

  // The newest whole message of one of our slots.
  struct Received {
    uint64_t seq = 0;  // 0: none yet
    size_t size_bytes = 0;
  };

  // The whole capacity of a slot to compose in. Writable even when the endpoint is down.
  virtual std::span<std::byte> send_memory(SlotIdx slot) = 0;
  // Makes a composed message visible to the peer. Not called when down.
  virtual void publish(SlotIdx slot, size_t size_bytes, uint64_t seq) = 0;
  // Moves what can be moved without blocking; records what arrived. May stop early once `slot` has
  // `seq`. Not called when down.
  virtual void advance(SlotIdx slot, uint64_t seq) = 0;
  // Ends a sleep under way or about to begin. Any thread.
  virtual void wake() = 0;
  [[nodiscard]] virtual std::span<const std::byte> receive_memory(SlotIdx slot) const = 0;
  // Takes from the peer whatever it could still reach. Called once.
  virtual void revoke() = 0;

  // The peer has left. What arrived whole before stays readable.
  void peer_left(const std::string& reason) { go_down(State::kPeerLeft, reason); }
  // The peer broke the contract, or was fenced: nothing it sent is used any more.
  void peer_broke(const std::string& reason) { go_down(State::kBroken, reason); }

  [[nodiscard]] bool is_up() const {
    return state_ == State::kUp && !aborted_.load(std::memory_order_acquire);
  }
  [[nodiscard]] bool was_aborted() const { return aborted_.load(std::memory_order_acquire); }
  [[nodiscard]] Received& received(SlotIdx slot) { return received_[slot]; }
  [[nodiscard]] size_t num_receive_slots() const { return received_.size(); }

 private:
  enum class State : uint8_t { kUp, kPeerLeft, kBroken };

  struct Sent {
    size_t capacity = 0;
    size_t staged_bytes = 0;
    uint64_t seq = 0;
  };

  void go_down(State state, const std::string& reason);
  [[nodiscard]] Status down_status() const;

  PeerId peer_;
  std::vector<Sent> sent_;
  std::vector<Received> received_;
  State state_ = State::kUp;
  std::string down_reason_;
  bool fenced_ = false;
  std::atomic<bool> aborted_{false};
};

}  // namespace lamina
