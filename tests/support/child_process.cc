#include "support/child_process.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "base/error.h"

namespace lamina::test {

void Channel::send(const std::string& text) const {
  const auto size = static_cast<uint32_t>(text.size());
  if (::send(fd_, &size, sizeof(size), MSG_NOSIGNAL) != sizeof(size) ||
      ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
    throw Error(StatusCode::kUnavailable, "the other process is gone");
  }
}

std::string Channel::receive() const {
  uint32_t size = 0;
  if (::recv(fd_, &size, sizeof(size), MSG_WAITALL) != sizeof(size)) {
    throw Error(StatusCode::kUnavailable, "the other process is gone");
  }
  std::string text(size, '\0');
  if (size > 0 && ::recv(fd_, text.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) {
    throw Error(StatusCode::kUnavailable, "the other process is gone");
  }
  return text;
}

ChildProcess::ChildProcess(const std::function<void(const Channel&)>& main) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error(StatusCode::kResourceExhausted, "no socket pair");
  }
  pid_ = ::fork();
  if (pid_ == 0) {
    ::close(ends[0]);
    try {
      main(Channel(ends[1]));
      ::_exit(0);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child process: %s\n", error.what());
      ::_exit(1);
    }
  }
  ::close(ends[1]);
  fd_ = ends[0];
}

ChildProcess::~ChildProcess() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::close(fd_);
}

void ChildProcess::signal(int number) const {
  ::kill(pid_, number);
}

std::unique_ptr<Endpoint> connect_through(const Channel& channel, const EndpointConfig& config) {
  auto pending = prepare_endpoint(config);
  channel.send(pending->blob());
  const std::string blob = channel.receive();
  return pending->complete(blob, Deadline::after(kChildTimeout));
}

void broker(const Channel& a, const Channel& b) {
  const std::string from_a = a.receive();
  const std::string from_b = b.receive();
  a.send(from_b);
  b.send(from_a);
}

}  // namespace lamina::test
