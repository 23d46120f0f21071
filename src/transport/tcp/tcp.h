// The tcp backend: endpoints between hosts over one TCP connection. The listening side takes any
// free port and tells it in its blob; IPv4, IPv6 and host names work alike. Bytes travel in the
// clear: use it inside a trusted network.
#pragma once

#include <memory>

#include "transport/endpoint.h"

namespace lamina {

std::unique_ptr<PendingEndpoint> prepare_tcp(const EndpointConfig& config);

}  // namespace lamina
