// The cuda_p2p backend: what hosts have to say goes through shared memory, as over shm, and beside
// it is a link by which the devices of both sides send each other messages themselves. Processes of
// one host and one user; devices are GPUs or the CPU. Where both are GPUs, messages lie in the
// receiver's memory, else in pinned memory of the host.
#pragma once

#include <memory>

#include "transport/endpoint.h"

namespace lamina::cuda_p2p {

// Errors besides those of prepare_endpoint(): what Link throws, by complete(); kUnimplemented for a
// GPU in a build without CUDA.
std::unique_ptr<PendingEndpoint> prepare_cuda_p2p(const EndpointConfig& config);

}  // namespace lamina::cuda_p2p
