#include "transport/cuda_p2p/unix_socket.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/check.h"
#include "base/error.h"

namespace lamina::cuda_p2p {
namespace {

[[noreturn]] void throw_errno(const char* what) {
  throw Error(StatusCode::kUnavailable,
              fmt::format("{}: {}", what, std::generic_category().message(errno)));
}

// A name of the abstract namespace begins with a zero and is as long as the address says.
struct Address {
  sockaddr_un address{};
  socklen_t size = 0;

  explicit Address(const std::string& name) {
    LAMINA_CHECK(name.size() + 1 < sizeof(address.sun_path), name);
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

FileHandle make_socket(int flags) {
  FileHandle socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0));
  if (!socket) throw_errno("making a UNIX socket");
  return socket;
}

bool is_own_user(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         peer.uid == ::geteuid();
}

}  // namespace

FileHandle listen_at(const std::string& name) {
  FileHandle socket = make_socket(SOCK_NONBLOCK);
  const Address address(name);
  if (::bind(socket.get(), address.get(), address.size) != 0) throw_errno("naming a UNIX socket");
  constexpr int kBacklog = 4;
  if (::listen(socket.get(), kBacklog) != 0) throw_errno("listening at a UNIX socket");
  return socket;
}

FileHandle accept_own_user(int listener, Deadline deadline) {
  while (!deadline.has_passed()) {
    pollfd polled = {.fd = listener, .events = POLLIN, .revents = 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline.remaining());
    const int ready = ::poll(&polled, 1, static_cast<int>(left.count()) + 1);
    if (ready < 0 && errno != EINTR) throw_errno("waiting for a connection");
    if (ready <= 0) continue;
    FileHandle socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (socket && is_own_user(socket.get())) return socket;
  }
  throw Error(StatusCode::kDeadlineExceeded, "the other process has not connected");
}

FileHandle connect_to_own_user(const std::string& name) {
  FileHandle socket = make_socket(0);
  const Address address(name);
  if (::connect(socket.get(), address.get(), address.size) != 0) {
    throw_errno("connecting to the other process");
  }
  if (!is_own_user(socket.get())) {
    throw Error(StatusCode::kUnauthenticated, "the other process is another user's");
  }
  return socket;
}

}  // namespace lamina::cuda_p2p
