// The nccl backend: GPUs of different hosts. What hosts have to say goes over TCP, as over tcp, and
// beside it is a link by which the GPUs of both sides send each other messages, enqueued or
// captured in graphs, by NCCL over whatever network it finds. Another TCP connection, introduced
// like the first, is for setting that up and tells of the other side's end.
#pragma once

#include <memory>

#include "transport/endpoint.h"

namespace lamina::nccl {

struct Library;

// Errors besides those of prepare_tcp(): kUnimplemented in a build without NCCL or where its
// library is not, kInvalidArgument for a device that is no GPU; by complete() what NcclLink throws.
std::unique_ptr<PendingEndpoint> prepare_nccl(const EndpointConfig& config);
// The same by another library than that of the machine, and for any device: for tests.
std::unique_ptr<PendingEndpoint> prepare_nccl(const EndpointConfig& config, const Library& library);

}  // namespace lamina::nccl
