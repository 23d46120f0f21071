// PeerProcess: this program once more, as a process of its own at the other end of a socket: CUDA
// does not survive a fork without exec. The program's main() hands over to the peer's part when its
// first argument is kPeerArgument.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace lamina::cuda_p2p::testing {

inline constexpr std::string_view kPeerArgument = "--peer";
// Of the peer's end of the socket, in the peer.
inline constexpr int kPeerSocket = 3;

class PeerProcess {
 public:
  // Starts it with `arguments` behind kPeerArgument. Dies with this process. Throws Error.
  explicit PeerProcess(const std::vector<std::string>& arguments);
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;
  ~PeerProcess();  // kills it

  [[nodiscard]] int socket() const { return socket_.get(); }
  void kill() const;

 private:
  FileHandle socket_;
  pid_t pid_ = -1;
};

// Plain structs over the socket. Throw Error kUnavailable if the other side has left, or kInternal
// for another size.
void send_bytes(int socket, const void* data, size_t size_bytes);
void receive_bytes(int socket, void* data, size_t size_bytes);
template <typename T>
void send_struct(int socket, const T& value) {
  send_bytes(socket, &value, sizeof(value));
}
template <typename T>
T receive_struct(int socket) {
  T value;
  receive_bytes(socket, &value, sizeof(value));
  return value;
}

}  // namespace lamina::cuda_p2p::testing
