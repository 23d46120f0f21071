// Small messages with a file descriptor beside them, over a connected UNIX socket that keeps
// messages apart (SOCK_SEQPACKET): how two processes of a host give each other memory.
#pragma once

#include <cstddef>
#include <span>

#include "base/clock.h"
#include "base/file.h"

namespace lamina::cuda_p2p {

// Sends `bytes`, and a duplicate of `descriptor`. Throws Error kUnavailable.
void send_descriptor(int socket, std::span<const std::byte> bytes, int descriptor);

// Receives as many bytes as `bytes` has room for, no fewer, and one descriptor, which the caller
// owns. Throws Error: kDeadlineExceeded, kUnavailable if the other side has left,
// kInvalidArgument for anything else than that. The bytes are hostile input.
FileHandle receive_descriptor(int socket, std::span<std::byte> bytes, Deadline deadline);

}  // namespace lamina::cuda_p2p
