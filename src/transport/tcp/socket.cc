#include "transport/tcp/socket.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include "base/error.h"

namespace lamina {
namespace {

// Backstops only: heartbeats and deadlines notice a lost peer first. Longer than the longest
// computation during which a healthy peer leaves its socket alone.
constexpr int kUserTimeoutMs = 20'000;
constexpr int kKeepaliveIdleS = 5;
constexpr int kKeepaliveIntervalS = 3;
constexpr int kKeepaliveProbes = 5;
constexpr int kBacklog = 64;

[[noreturn]] void throw_unavailable(const std::string& what, int error) {
  throw Error(StatusCode::kUnavailable,
              fmt::format("{}: {}", what, std::generic_category().message(error)));
}

FileHandle open_stream_socket(const SocketAddress& address) {
  return FileHandle(
      ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

const sockaddr* raw(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr*>(&address.storage);
}

void set_option(int socket, int level, int option, int value) {
  if (::setsockopt(socket, level, option, &value, sizeof(value)) != 0) {
    throw_unavailable(fmt::format("cannot set socket option {} of level {}", option, level), errno);
  }
}

// The error with which a connection attempt ended, 0 for success, ETIMEDOUT past the deadline.
int finish_connect(int socket, const SocketAddress& address, Deadline deadline) {
  if (::connect(socket, raw(address), address.size_bytes) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!wait_for_events(socket, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof(error);
  return ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

}  // namespace

std::vector<SocketAddress> resolve_host(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(
      host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, ::freeaddrinfo);
  if (error != 0) {
    throw Error(StatusCode::kUnavailable,
                fmt::format("cannot resolve host '{}': {}", host, ::gai_strerror(error)));
  }
  std::vector<SocketAddress> addresses;
  for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
    SocketAddress address{.size_bytes = entry->ai_addrlen};
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    addresses.push_back(address);
  }
  return addresses;
}

FileHandle listen_on(const std::string& host, uint16_t port) {
  int error = EADDRNOTAVAIL;
  for (const SocketAddress& address : resolve_host(host, port)) {
    FileHandle socket = open_stream_socket(address);
    if (socket && ::bind(socket.get(), raw(address), address.size_bytes) == 0 &&
        ::listen(socket.get(), kBacklog) == 0) {
      return socket;
    }
    error = errno;
  }
  throw_unavailable(fmt::format("cannot listen on '{}' port {}", host, port), error);
}

uint16_t local_port(int socket) {
  SocketAddress address{.size_bytes = sizeof(sockaddr_storage)};
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address.storage), &address.size_bytes) !=
      0) {
    throw_unavailable("cannot read a socket's port", errno);
  }
  const bool is_v6 = address.storage.ss_family == AF_INET6;
  return ntohs(is_v6 ? reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_port
                     : reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

FileHandle connect_to(const std::string& host, uint16_t port, Deadline deadline) {
  const std::vector<SocketAddress> addresses = resolve_host(host, port);
  int error = EADDRNOTAVAIL;
  for (size_t i = 0; i < addresses.size(); ++i) {
    FileHandle socket = open_stream_socket(addresses[i]);
    if (!socket) {
      error = errno;
      continue;
    }
    // One silent address must not use up the time of the others.
    const auto share = deadline.remaining() / static_cast<int64_t>(addresses.size() - i);
    error = finish_connect(socket.get(), addresses[i], Deadline::after(share));
    if (error == 0) return socket;
  }
  const std::string what = fmt::format("cannot connect to '{}' port {}", host, port);
  if (error == ETIMEDOUT) throw Error(StatusCode::kDeadlineExceeded, what + ": no answer in time");
  throw_unavailable(what, error);
}

void set_stream_options(int socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleS);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalS);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
}

bool wait_for_events(int fd, short events, Deadline deadline) {
  pollfd descriptor{.fd = fd, .events = events, .revents = 0};
  while (true) {
    const Duration left = deadline.remaining();
    const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    const int timeout_ms = static_cast<int>(std::min<int64_t>(left_ms, 60'000));
    const int ready = ::poll(&descriptor, 1, timeout_ms);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) throw_unavailable("cannot poll a socket", errno);
    if (left == Duration::zero()) return false;
  }
}

}  // namespace lamina
