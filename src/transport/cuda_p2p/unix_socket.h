// Connections between processes of one user on one host, over UNIX sockets that keep messages apart
// (SOCK_SEQPACKET). Names are of the abstract namespace: nothing is left in a file system.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/file.h"

namespace lamina::cuda_p2p {

// Throws Error kUnavailable.
FileHandle listen_at(const std::string& name);
// The first connection by a process of this user; others are turned away. Throws Error:
// kDeadlineExceeded, kUnavailable.
FileHandle accept_own_user(int listener, Deadline deadline);
// To a listener of this user. Throws Error: kUnavailable if there is none, kUnauthenticated if it
// is another user's.
FileHandle connect_to_own_user(const std::string& name);

}  // namespace lamina::cuda_p2p
