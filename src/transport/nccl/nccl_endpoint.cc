#include "transport/nccl/nccl_endpoint.h"

#include "transport/nccl/linked_endpoint.h"
#include "transport/nccl/nccl_link.h"

namespace lamina::nccl {

std::unique_ptr<PendingEndpoint> prepare_nccl(const EndpointConfig& config,
                                              const Library& library) {
  return prepare_linked(
      config, [&library](const LinkConfig& link, FileHandle socket, Deadline deadline) {
        return std::make_unique<NcclLink>(library, link, std::move(socket), deadline);
      });
}

std::unique_ptr<PendingEndpoint> prepare_nccl(const EndpointConfig& config) {
  return prepare_nccl(config, require_gpu_and_library(config));
}

}  // namespace lamina::nccl
