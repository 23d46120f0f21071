// PeerWatch: a thread that sleeps until the peer's process is gone, however it ended, and then ends
// the waits of those who talk to it. A peer that only stopped is left to their time limits.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "base/file.h"
#include "transport/cuda_p2p/step_guard.h"

namespace lamina::cuda_p2p {

class PeerWatch {
 public:
  // `socket`: the link's, whose other end closes with the peer. It and the guards outlive this.
  // Throws Error kUnavailable.
  PeerWatch(int socket, std::vector<StepGuard*> guards);
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;
  ~PeerWatch();

  [[nodiscard]] bool has_left() const { return has_left_.load(); }

 private:
  void watch(int socket);

  std::vector<StepGuard*> guards_;
  FileHandle stop_;  // an eventfd
  std::atomic<bool> has_left_{false};
  std::thread thread_;
};

}  // namespace lamina::cuda_p2p
