// PeerProcess: this program once more, as a process of its own at the other end of a socket, for
// measurements between processes: CUDA does not survive a fork without exec. The program's main()
// hands over to the peer's part (peer.h) when its first argument is the one that peers are started
// with. Confined to one thread, with which the peer dies.
#pragma once

#include <sys/types.h>

#include <string>
#include <type_traits>
#include <vector>

#include "base/clock.h"
#include "base/file.h"

namespace lamina::measure {

// Of the peer's end of the socket, in the peer.
inline constexpr int kPeerSocket = 3;

class PeerProcess {
 public:
  // Starts it with `argument`. Throws Error kUnavailable.
  explicit PeerProcess(const std::string& argument);
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;
  ~PeerProcess();  // kills it

  [[nodiscard]] int socket() const { return socket_.get(); }
  [[nodiscard]] pid_t pid() const { return pid_; }
  void kill() const;

 private:
  FileHandle socket_;
  pid_t pid_ = -1;
};

// Messages over the socket, between builds that are the same. Receiving throws Error: kUnavailable
// if the other side has left, kDeadlineExceeded, kInternal for another size. So does sending:
// kUnavailable.
void send_bytes(int socket, const void* data, size_t size_bytes);
void receive_bytes(int socket, void* data, size_t size_bytes, Deadline deadline);
template <typename T>
void send_struct(int socket, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  send_bytes(socket, &value, sizeof(value));
}
template <typename T>
T receive_struct(int socket, Deadline deadline) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value{};
  receive_bytes(socket, &value, sizeof(value), deadline);
  return value;
}
// Up to kMaxText bytes.
inline constexpr size_t kMaxText = 4096;
void send_text(int socket, const std::string& text);
std::string receive_text(int socket, Deadline deadline);

}  // namespace lamina::measure
