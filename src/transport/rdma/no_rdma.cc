// Linked instead of the rdma backend where the build has no NCCL that is new enough.
#include "base/error.h"
#include "transport/rdma/rdma_endpoint.h"

namespace lamina::rdma {

std::unique_ptr<PendingEndpoint> prepare_rdma(const EndpointConfig& /*config*/) {
  throw Error(StatusCode::kUnimplemented,
              "this build of lamina has no GPU-initiated RDMA, which --transport rdma needs: build "
              "it with CUDA and the headers of NCCL 2.29.7 or newer (the Python package "
              "nvidia-nccl-cu13), or --transport nccl");
}

}  // namespace lamina::rdma
