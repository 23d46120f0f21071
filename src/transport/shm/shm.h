// The shm backend: endpoints between processes of one host, over POSIX shared memory. Each side
// makes its receive region under a random name, which the peer maps and unlinks. Both run as one
// user: the regions are private to it.
#pragma once

#include <memory>

#include "transport/endpoint.h"

namespace lamina {

std::unique_ptr<PendingEndpoint> prepare_shm(const EndpointConfig& config);

}  // namespace lamina
