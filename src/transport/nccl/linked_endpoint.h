// Endpoints of backends whose devices reach each other over a network: what hosts have to say goes
// over TCP, as over tcp, and beside it is a link of the devices. A second connection, introduced
// like the first, is for setting the link up. Shared by nccl and rdma.
#pragma once

#include <functional>
#include <memory>

#include "base/file.h"
#include "transport/device_link.h"
#include "transport/nccl/agreement.h"

namespace lamina::nccl {

// The link over a socket that is introduced, non-blocking and fresh. Throws Error.
using MakeLink =
    std::function<std::unique_ptr<DeviceLink>(const LinkConfig&, FileHandle socket, Deadline)>;

// What such a backend needs of this machine first: a GPU, whose kernels are loaded, and NCCL's
// library. Throws Error, saying what is missing: kInvalidArgument for a device that is no GPU,
// kUnimplemented without the library.
const Library& require_gpu_and_library(const EndpointConfig& config);

// Throws what prepare_tcp() throws, kInvalidArgument where channels cannot share the slots; by
// complete() also what `make_link` throws.
std::unique_ptr<PendingEndpoint> prepare_linked(const EndpointConfig& config, MakeLink make_link);

}  // namespace lamina::nccl
