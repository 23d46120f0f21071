// The loopback backend: endpoints between threads of one process, over plain memory. For tests, the
// colocated baseline and single-process serving.
#pragma once

#include <memory>

#include "transport/endpoint.h"

namespace lamina {

std::unique_ptr<PendingEndpoint> prepare_loopback(const EndpointConfig& config);

}  // namespace lamina
