// A forked child and a channel of texts to it, over which both sides set up endpoints. Children are
// forked before this process has threads.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "transport/endpoint.h"

namespace lamina::test {

inline constexpr Duration kChildTimeout = std::chrono::seconds(20);

// One end. Calls throw Error kUnavailable when the other process is gone.
class Channel {
 public:
  explicit Channel(int fd) : fd_(fd) {}
  void send(const std::string& text) const;
  [[nodiscard]] std::string receive() const;

 private:
  int fd_;
};

class ChildProcess {
 public:
  // Forks; `main` runs in the child, which ends with it.
  explicit ChildProcess(const std::function<void(const Channel&)>& main);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();  // kills it

  void signal(int number) const;
  [[nodiscard]] Channel channel() const { return Channel(fd_); }

 private:
  pid_t pid_ = -1;
  int fd_ = -1;
};

// Sets up this side of an endpoint with whoever is at the channel's other end, or is brokered
// there.
std::unique_ptr<Endpoint> connect_through(const Channel& channel, const EndpointConfig& config);
// Lets two children set up an endpoint with each other.
void broker(const Channel& a, const Channel& b);

}  // namespace lamina::test
