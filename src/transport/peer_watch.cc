#include "transport/peer_watch.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/error.h"

namespace lamina {

PeerWatch::PeerWatch(PeerWatchConfig config)
    : config_(std::move(config)), stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (!stop_) throw Error(StatusCode::kUnavailable, "no more file descriptors");
  thread_ = std::thread([this] { watch(); });
}

PeerWatch::~PeerWatch() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void PeerWatch::watch() {
  std::vector<pollfd> polled = {{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  for (const int socket : config_.sockets) {
    polled.push_back({.fd = socket, .events = POLLRDHUP, .revents = 0});
  }
  const auto tick = std::chrono::duration_cast<std::chrono::milliseconds>(config_.tick);
  const int timeout_ms = config_.on_tick ? static_cast<int>(tick.count()) : -1;
  const auto has_event = [](const pollfd& each) { return each.revents != 0; };
  // Ends with a peer or with this object; a signal is neither.
  while (std::ranges::none_of(polled, has_event)) {
    const int num_ready = ::poll(polled.data(), polled.size(), timeout_ms);
    if (num_ready == 0 && config_.on_tick) config_.on_tick();
  }
  if (has_event(polled.front())) return;
  config_.on_leave();
  has_left_.store(true);
}

}  // namespace lamina
