#include "control/tcp_relay.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

namespace lamina::control {
namespace {

sockaddr_in loopback_address(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool is_readable(const FileHandle& handle) {
  pollfd polled{.fd = handle.get(), .events = POLLIN, .revents = 0};
  return poll(&polled, 1, 0) == 1;
}

}  // namespace

FileHandle listen_on_loopback(uint16_t& port) {
  FileHandle handle(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback_address(port);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof(address);
  if (bind(handle.get(), raw, size) != 0 || listen(handle.get(), 16) != 0 ||
      getsockname(handle.get(), raw, &size) != 0) {
    throw Error(StatusCode::kUnavailable, "cannot listen on loopback");
  }
  port = ntohs(address.sin_port);
  return handle;
}

FileHandle connect_to_loopback(uint16_t port) {
  FileHandle handle(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback_address(port);
  if (connect(handle.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw Error(StatusCode::kUnavailable, "cannot connect on loopback");
  }
  return handle;
}

TcpRelay::TcpRelay(uint16_t target_port)
    : target_port_(target_port), listener_(listen_on_loopback(port_)) {
  thread_ = std::thread([this] { run(); });
}

TcpRelay::~TcpRelay() {
  stopping_ = true;
  thread_.join();
}

void TcpRelay::cut() {
  const std::lock_guard lock(mutex_);
  cut_ = true;
  for (Link& link : links_) link.dead = true;
}

void TcpRelay::mend() {
  const std::lock_guard lock(mutex_);
  cut_ = false;
}

void TcpRelay::run() {
  while (!stopping_) {
    std::vector<pollfd> polled = {{.fd = listener_.get(), .events = POLLIN, .revents = 0}};
    {
      const std::lock_guard lock(mutex_);
      for (const Link& link : links_) {
        if (link.dead) continue;
        polled.push_back({.fd = link.client.get(), .events = POLLIN, .revents = 0});
        polled.push_back({.fd = link.server.get(), .events = POLLIN, .revents = 0});
      }
    }
    poll(polled.data(), polled.size(), 20);  // then looks at stopping_
    const std::lock_guard lock(mutex_);
    if (is_readable(listener_)) accept_one();
    for (Link& link : links_) {
      forward(link.client, link.server, link);
      forward(link.server, link.client, link);
    }
  }
}

void TcpRelay::accept_one() {
  Link link{.client = FileHandle(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)),
            .server = {},
            .dead = cut_};
  if (!cut_) link.server = connect_to_loopback(target_port_);
  links_.push_back(std::move(link));
}

// At most one chunk; an end of either side ends the link.
void TcpRelay::forward(const FileHandle& from, const FileHandle& to, Link& link) {
  if (link.dead || !is_readable(from)) return;
  char chunk[16384];
  const ssize_t size = read(from.get(), chunk, sizeof(chunk));
  if (size > 0 && send(to.get(), chunk, static_cast<size_t>(size), MSG_NOSIGNAL) == size) {
    return;
  }
  link.dead = true;
  shutdown(link.client.get(), SHUT_RDWR);
  shutdown(link.server.get(), SHUT_RDWR);
}

}  // namespace lamina::control
