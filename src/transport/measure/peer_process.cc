#include "transport/measure/peer_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <system_error>

#include "base/error.h"

namespace lamina::measure {
namespace {

[[noreturn]] void throw_errno(const char* what) {
  throw Error(StatusCode::kUnavailable,
              fmt::format("{}: {}", what, std::generic_category().message(errno)));
}

// Only what is safe between fork and exec.
[[noreturn]] void become_peer(char* const* arguments, int socket, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(0);
  if (socket == kPeerSocket) {
    ::fcntl(socket, F_SETFD, 0);
  } else {
    ::dup2(socket, kPeerSocket);
  }
  ::execv("/proc/self/exe", arguments);
  ::_exit(127);
}

void wait_for_message(int socket, Deadline deadline) {
  pollfd polled = {.fd = socket, .events = POLLIN, .revents = 0};
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline.remaining());
    const int ready = ::poll(&polled, 1, static_cast<int>(left.count()) + 1);
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) throw_errno("waiting for the other process");
    if (deadline.has_passed()) {
      throw Error(StatusCode::kDeadlineExceeded, "the other process has not answered in time");
    }
  }
}

// How many bytes came; as many as there were, if `size_bytes` are too few.
size_t receive_up_to(int socket, void* data, size_t size_bytes, Deadline deadline) {
  wait_for_message(socket, deadline);
  const ssize_t got = ::recv(socket, data, size_bytes, MSG_TRUNC);
  if (got <= 0) throw Error(StatusCode::kUnavailable, "the other process has left");
  return static_cast<size_t>(got);
}

}  // namespace

PeerProcess::PeerProcess(const std::string& argument) {
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    throw_errno("making sockets for another process");
  }
  socket_.reset(sockets[0]);
  const FileHandle theirs(sockets[1]);
  std::string name = "lamina";
  std::string first = argument;
  const std::array<char*, 3> arguments = {name.data(), first.data(), nullptr};
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) throw_errno("starting another process");
  if (pid_ == 0) become_peer(arguments.data(), theirs.get(), parent);
}

PeerProcess::~PeerProcess() {
  kill();
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void PeerProcess::kill() const {
  ::kill(pid_, SIGKILL);
}

void send_bytes(int socket, const void* data, size_t size_bytes) {
  if (::send(socket, data, size_bytes, MSG_NOSIGNAL) != static_cast<ssize_t>(size_bytes)) {
    throw Error(StatusCode::kUnavailable, "the other process has left");
  }
}

void receive_bytes(int socket, void* data, size_t size_bytes, Deadline deadline) {
  if (receive_up_to(socket, data, size_bytes, deadline) != size_bytes) {
    throw Error(StatusCode::kInternal, "the other process said something else");
  }
}

void send_text(int socket, const std::string& text) {
  send_bytes(socket, text.data(), text.size());
}

std::string receive_text(int socket, Deadline deadline) {
  std::array<char, kMaxText> text{};
  const size_t size = receive_up_to(socket, text.data(), text.size(), deadline);
  if (size > text.size()) throw Error(StatusCode::kInternal, "the other process said too much");
  return {text.data(), size};
}

}  // namespace lamina::measure
