#include "transport/cuda_p2p/descriptor_socket.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/error.h"

namespace lamina::cuda_p2p {
namespace {

[[noreturn]] void throw_errno(const char* what) {
  throw Error(StatusCode::kUnavailable,
              fmt::format("{}: {}", what, std::generic_category().message(errno)));
}

// The one descriptor that goes beside the bytes.
union Control {
  cmsghdr header;
  std::array<char, CMSG_SPACE(sizeof(int))> bytes;
};

void wait_until_readable(int socket, Deadline deadline) {
  pollfd polled = {.fd = socket, .events = POLLIN, .revents = 0};
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline.remaining());
    const int ready = ::poll(&polled, 1, static_cast<int>(left.count()) + 1);
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) throw_errno("waiting for the other process");
    if (deadline.has_passed()) {
      throw Error(StatusCode::kDeadlineExceeded, "the other process sends no memory");
    }
  }
}

FileHandle take_descriptor(msghdr& message) {
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return FileHandle();
  }
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
  return FileHandle(descriptor);
}

}  // namespace

void send_descriptor(int socket, std::span<const std::byte> bytes, int descriptor) {
  iovec data = {.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  Control control{};
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(&control.header), &descriptor, sizeof(descriptor));
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof(control);
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) throw_errno("sending memory");
}

FileHandle receive_descriptor(int socket, std::span<std::byte> bytes, Deadline deadline) {
  wait_until_readable(socket, deadline);
  iovec data = {.iov_base = bytes.data(), .iov_len = bytes.size()};
  Control control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (got < 0) throw_errno("receiving memory");
  if (got == 0) throw Error(StatusCode::kUnavailable, "the other process has left");
  FileHandle descriptor = take_descriptor(message);
  const bool is_cut = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  if (!descriptor || is_cut || static_cast<size_t>(got) != bytes.size()) {
    throw Error(StatusCode::kInvalidArgument, "the other process sent something else than memory");
  }
  return descriptor;
}

}  // namespace lamina::cuda_p2p
