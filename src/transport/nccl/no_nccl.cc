// Linked instead of the nccl backend where the build has no NCCL.
#include "base/error.h"
#include "transport/nccl/nccl_endpoint.h"

namespace lamina::nccl {

std::unique_ptr<PendingEndpoint> prepare_nccl(const EndpointConfig& /*config*/) {
  throw Error(StatusCode::kUnimplemented,
              "this build of lamina has no NCCL, which --transport nccl needs: build it where "
              "nccl.h is, or --transport tcp");
}

}  // namespace lamina::nccl
