// The rdma backend: GPUs of different hosts that drive RDMA NICs themselves, by NCCL's GIN. Its
// endpoints are nccl's but for the link. Never run on a NIC: docs/adr/0034-gpu-initiated-rdma.md.
#pragma once

#include <memory>

#include "transport/endpoint.h"

namespace lamina::nccl {
struct Library;
}

namespace lamina::rdma {

struct Libraries;

// Errors besides those of prepare_tcp(), each saying what is missing: kInvalidArgument for a device
// that is no GPU, kUnimplemented in a build without this backend or where NCCL's library is not or
// is too old; by complete() what RdmaLink throws.
std::unique_ptr<PendingEndpoint> prepare_rdma(const EndpointConfig& config);
// The same by libraries that are good enough, and for any device: for tests.
std::unique_ptr<PendingEndpoint> prepare_rdma(const EndpointConfig& config,
                                              const Libraries& libraries);
// Throws Error kUnimplemented where NCCL's library is older than the headers of this build.
void require_version(const nccl::Library& library);

}  // namespace lamina::rdma
