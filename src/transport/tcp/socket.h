// Sockets of the tcp backend: names to addresses, listening, connecting with a deadline, options.
// Setup code: throws Error kUnavailable with what the system said. All sockets are non-blocking.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"

namespace lamina {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size_bytes = 0;
};

// IPv4 and IPv6 addresses of a name or a literal, in the system's order of preference. A name
// server that does not answer blocks for the resolver's own timeout.
std::vector<SocketAddress> resolve_host(const std::string& host, uint16_t port);

// Listens on the first address of `host` that works; port 0 is any.
FileHandle listen_on(const std::string& host, uint16_t port);
uint16_t local_port(int socket);

// Connects to the first address of `host` that accepts. Throws kDeadlineExceeded also.
FileHandle connect_to(const std::string& host, uint16_t port, Deadline deadline);

// Small messages at once; a peer that vanished is noticed while data is in flight and while idle.
void set_stream_options(int socket);

// poll(2) for one descriptor. False when the deadline passed.
bool wait_for_events(int fd, short events, Deadline deadline);

}  // namespace lamina
