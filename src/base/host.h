// Host names as users write them. Used wherever listening or connecting depends on who can reach
// it.
#pragma once

#include <string>

namespace lamina {

// Whether `host` can only be reached from this machine: localhost, 127.0.0.0/8, ::1. Other names
// are not resolved and count as reachable.
bool is_loopback_host(const std::string& host);

}  // namespace lamina
