// TcpRelay: a link between a client and a server of this machine that can be cut. A cut link loses
// everything and closes nothing, as a pulled cable does. Tests only.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/file.h"

namespace lamina::control {

class TcpRelay {
 public:
  // Forwards to 127.0.0.1:`target_port`. Throws Error if it cannot listen.
  explicit TcpRelay(uint16_t target_port);
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;
  ~TcpRelay();

  [[nodiscard]] uint16_t port() const { return port_; }
  // Once it returns, not a byte passes.
  void cut();
  // New connections pass again; those from before and during the cut stay dead.
  void mend();

 private:
  struct Link {
    FileHandle client;
    FileHandle server;
    bool dead = false;
  };

  void run();
  void accept_one();
  static void forward(const FileHandle& from, const FileHandle& to, Link& link);

  const uint16_t target_port_;
  uint16_t port_ = 0;
  FileHandle listener_;
  std::mutex mutex_;
  bool cut_ = false;         // guarded by mutex_
  std::vector<Link> links_;  // guarded by mutex_
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

// A TCP socket on loopback: bound and listening on `port`, set to a free one if 0...
FileHandle listen_on_loopback(uint16_t& port);
// ... or connected to it. Both throw Error kUnavailable.
FileHandle connect_to_loopback(uint16_t port);

}  // namespace lamina::control
