#include "transport/cuda_p2p/peer_watch.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <cstdint>
#include <utility>

#include "base/error.h"

namespace lamina::cuda_p2p {

PeerWatch::PeerWatch(int socket, std::vector<StepGuard*> guards)
    : guards_(std::move(guards)), stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (!stop_) throw Error(StatusCode::kUnavailable, "no more file descriptors");
  thread_ = std::thread([this, socket] { watch(socket); });
}

PeerWatch::~PeerWatch() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void PeerWatch::watch(int socket) {
  std::array<pollfd, 2> polled = {pollfd{.fd = socket, .events = POLLRDHUP, .revents = 0},
                                  pollfd{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  // Ends with the peer or with this object; a signal is neither.
  while (polled[0].revents == 0 && polled[1].revents == 0) {
    ::poll(polled.data(), polled.size(), -1);
  }
  if (polled[0].revents == 0) return;
  for (StepGuard* const guard : guards_) guard->abort();
  has_left_.store(true);
}

}  // namespace lamina::cuda_p2p
