// What the transport's tests share: configurations of the two sides, connected pairs inside one
// process, a peer in a process of its own, and message contents that can be checked.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/file.h"
#include "transport/endpoint.h"

namespace lamina {

// Names the parameter in gtest's output.
inline void PrintTo(TransportKind kind, std::ostream* stream) {
  *stream << transport_name(kind);
}

}  // namespace lamina

namespace lamina::transport_testing {

// Long enough for a loaded machine under a sanitizer: no test waits for it unless it fails.
inline constexpr Duration kPatience = std::chrono::seconds(60);

inline Deadline patience() {
  return Deadline::after(kPatience);
}

struct Slots {
  std::vector<size_t> to_listener;
  std::vector<size_t> to_connector;
};

// The two sides of one endpoint; their ids are 1 and 2. Only tcp cares who listens.
EndpointConfig listener_config(TransportKind kind, const Slots& slots, uint64_t epoch = 1);
EndpointConfig connector_config(TransportKind kind, const Slots& slots, uint64_t epoch = 1);

struct Pair {
  std::unique_ptr<Endpoint> listener;
  std::unique_ptr<Endpoint> connector;
};
Pair complete_pair(PendingEndpoint& listener, PendingEndpoint& connector);
Pair connect_pair(TransportKind kind, const Slots& slots, uint64_t epoch = 1);

// The code of the Error that `call` throws; kOk if it throws none.
StatusCode thrown_code(const std::function<void()>& call);

// Bytes that depend on `seed`, and whether `bytes` are those.
void fill(std::span<std::byte> bytes, uint64_t seed);
bool is_filled(std::span<const std::byte> bytes, uint64_t seed);
void put_filled(Endpoint& endpoint, SlotIdx slot, size_t size_bytes, uint64_t seq);

// A child process at the other end, the connector. It runs `body` and exits with 0, or with 1 if
// that returns false. Dies with the test.
class ChildPeer {
 public:
  ChildPeer(TransportKind kind, const Slots& slots, const std::function<bool(Endpoint&)>& body);
  ~ChildPeer();
  ChildPeer(const ChildPeer&) = delete;
  ChildPeer& operator=(const ChildPeer&) = delete;

  [[nodiscard]] Endpoint& endpoint() { return *endpoint_; }
  void signal(int number) const;
  // Waits until the child ended; its exit code, or minus the signal that ended it.
  int join();

 private:
  pid_t pid_ = -1;
  std::unique_ptr<Endpoint> endpoint_;
};

}  // namespace lamina::transport_testing
