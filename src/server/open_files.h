// The process's limit of open files, which connections share with model files and with the workers'
// connections. Used by the server when it starts.
#pragma once

#include <cstdint>

namespace lamina::server {

// Raises the limit, as far as the process may, so that `wanted` connections fit beside everything
// else. How many do fit: `wanted`, or fewer and a warning, at least 1.
int32_t make_room_for_connections(int32_t wanted);

}  // namespace lamina::server
