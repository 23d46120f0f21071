// DeviceLink: an endpoint's link between devices, and what ends the waits on it. Waits of a
// stream's kernels, or of a CPU thread, are ended by its StepGuard: from guard() on also when the
// peer's process leaves and when the endpoint is aborted.
#pragma once

#include <memory>
#include <vector>

#include "base/file.h"
#include "transport/cuda_p2p/link.h"
#include "transport/cuda_p2p/peer_watch.h"

namespace lamina::cuda_p2p {

class DeviceLink {
 public:
  // `socket` is connected to the peer. Throws what Link throws.
  DeviceLink(const LinkConfig& config, FileHandle socket, Deadline deadline)
      : socket_(std::move(socket)), link_(config, socket_.get(), deadline) {}

  [[nodiscard]] const Link& link() const { return link_; }
  // Both are of hosts, or have a host between them.
  [[nodiscard]] bool is_in_host_memory() const { return link_.place() == Place::kHostMemory; }
  // Once; the guards outlive unguard(). Throws Error kUnavailable.
  void guard(std::vector<StepGuard*> guards) {
    watch_ = std::make_unique<PeerWatch>(socket_.get(), std::move(guards));
  }
  void unguard() { watch_.reset(); }
  // From any thread: both sides' guards end their waits.
  void abort() noexcept;

 private:
  FileHandle socket_;
  Link link_;
  std::unique_ptr<PeerWatch> watch_;
};

}  // namespace lamina::cuda_p2p
