#include "transport/tcp/handshake.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "transport/tcp/socket.h"

namespace lamina {
namespace {

// A connection that has not introduced itself. The oldest makes room for the next: who knows the
// token introduces himself within a round trip, who fills the list does not.
constexpr size_t kMaxHalfOpen = 16;
constexpr Duration kHelloTimeout = std::chrono::seconds(2);

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

enum class Progress { kPending, kWelcome, kRefused };

class HalfOpen {
 public:
  explicit HalfOpen(FileHandle socket)
      : socket_(std::move(socket)), give_up_(Deadline::after(kHelloTimeout)) {}

  Progress read(const Hello& expected) {
    const ssize_t got =
        ::recv(socket_.get(), said_.data() + size_bytes_, said_.size() - size_bytes_, 0);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
      return Progress::kPending;
    }
    if (got <= 0) return Progress::kRefused;
    size_bytes_ += static_cast<size_t>(got);
    if (size_bytes_ < said_.size()) return Progress::kPending;
    return equal_constant_time(said_, bytes_of(expected)) ? Progress::kWelcome : Progress::kRefused;
  }
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] bool is_late() const { return give_up_.has_passed(); }
  FileHandle take_socket() { return std::move(socket_); }

 private:
  FileHandle socket_;
  Deadline give_up_;
  std::array<std::byte, sizeof(Hello)> said_{};
  size_t size_bytes_ = 0;
};

void accept_waiting(int listener, std::vector<HalfOpen>& half_open) {
  for (size_t i = 0; i < kMaxHalfOpen; ++i) {
    FileHandle socket(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) return;
    if (half_open.size() == kMaxHalfOpen) half_open.erase(half_open.begin());
    half_open.emplace_back(std::move(socket));
  }
}

// The one that said what was expected. Refused and late ones are closed.
std::optional<FileHandle> read_hellos(std::vector<HalfOpen>& half_open, const Hello& expected) {
  for (auto peer = half_open.begin(); peer != half_open.end();) {
    const Progress progress = peer->read(expected);
    if (progress == Progress::kWelcome) return peer->take_socket();
    if (progress == Progress::kRefused) {
      log_warning("transport: refused a connection: wrong token, epoch or peer");
    }
    const bool stays = progress == Progress::kPending && !peer->is_late();
    peer = stays ? peer + 1 : half_open.erase(peer);
  }
  return std::nullopt;
}

// Until any of them has something to say, a nap has passed (late ones go then), or the deadline.
void wait_for_any(int listener, const std::vector<HalfOpen>& half_open, Deadline deadline) {
  constexpr int64_t kNapMs = 100;
  std::array<pollfd, kMaxHalfOpen + 1> descriptors{};
  nfds_t count = 0;
  descriptors[count++] = {.fd = listener, .events = POLLIN, .revents = 0};
  for (const HalfOpen& peer : half_open) {
    descriptors[count++] = {.fd = peer.fd(), .events = POLLIN, .revents = 0};
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline.remaining()).count();
  ::poll(descriptors.data(), count, static_cast<int>(std::min<int64_t>(left, kNapMs)));
}

// Small enough for the buffer of any fresh socket.
bool send_whole(int socket, std::span<const std::byte> bytes) {
  return ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

}  // namespace

FileHandle accept_peer(int listener,
                       const Hello& expected,
                       const HelloReply& reply,
                       Deadline deadline) {
  std::vector<HalfOpen> half_open;
  half_open.reserve(kMaxHalfOpen);
  while (true) {
    accept_waiting(listener, half_open);
    if (std::optional<FileHandle> peer = read_hellos(half_open, expected)) {
      set_stream_options(peer->get());
      if (send_whole(peer->get(), bytes_of(reply))) return std::move(*peer);
    }
    if (deadline.has_passed()) {
      throw Error(StatusCode::kDeadlineExceeded, "no peer with the right token connected in time");
    }
    wait_for_any(listener, half_open, deadline);
  }
}

void introduce(int socket, const Hello& hello, const HelloReply& expected, Deadline deadline) {
  constexpr const char* kRefused =
      "peer hung up during the handshake: wrong token or epoch, or it is gone";
  set_stream_options(socket);
  if (!send_whole(socket, bytes_of(hello))) throw Error(StatusCode::kUnauthenticated, kRefused);
  std::array<std::byte, sizeof(HelloReply)> said{};
  size_t size_bytes = 0;
  while (size_bytes < said.size()) {
    if (!wait_for_events(socket, POLLIN, deadline)) {
      throw Error(StatusCode::kDeadlineExceeded, "peer did not answer the handshake in time");
    }
    const ssize_t got = ::recv(socket, said.data() + size_bytes, said.size() - size_bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) continue;
    if (got <= 0) throw Error(StatusCode::kUnauthenticated, kRefused);
    size_bytes += static_cast<size_t>(got);
  }
  if (!equal_constant_time(said, bytes_of(expected))) {
    throw Error(StatusCode::kUnauthenticated, "peer answered the handshake with another token");
  }
}

}  // namespace lamina
