#include "transport/cuda_p2p/testing/peer_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <utility>

#include "base/error.h"

namespace lamina::cuda_p2p::testing {
namespace {

// Only what is safe between fork and exec.
[[noreturn]] void become_peer(char* const* arguments, int socket) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (socket == kPeerSocket) {
    ::fcntl(socket, F_SETFD, 0);
  } else {
    ::dup2(socket, kPeerSocket);
  }
  ::execv("/proc/self/exe", arguments);
  ::_exit(127);
}

}  // namespace

PeerProcess::PeerProcess(const std::vector<std::string>& arguments) {
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    throw Error(StatusCode::kInternal, "no sockets for another process");
  }
  socket_.reset(sockets[0]);
  const FileHandle theirs(sockets[1]);
  std::vector<std::string> all = {"peer", std::string(kPeerArgument)};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> raw;
  for (std::string& argument : all) raw.push_back(argument.data());
  raw.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) throw Error(StatusCode::kInternal, "no other process");
  if (pid_ == 0) become_peer(raw.data(), theirs.get());
}

PeerProcess::~PeerProcess() {
  kill();
  ::waitpid(pid_, nullptr, 0);
}

void PeerProcess::kill() const {
  ::kill(pid_, SIGKILL);
}

void send_bytes(int socket, const void* data, size_t size_bytes) {
  if (::send(socket, data, size_bytes, MSG_NOSIGNAL) != static_cast<ssize_t>(size_bytes)) {
    throw Error(StatusCode::kUnavailable, "the other process has left");
  }
}

void receive_bytes(int socket, void* data, size_t size_bytes) {
  const ssize_t got = ::recv(socket, data, size_bytes, MSG_TRUNC);
  if (got <= 0) throw Error(StatusCode::kUnavailable, "the other process has left");
  if (got != static_cast<ssize_t>(size_bytes)) {
    throw Error(StatusCode::kInternal, "the other process said something else");
  }
}

}  // namespace lamina::cuda_p2p::testing
