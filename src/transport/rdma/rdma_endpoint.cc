#include "transport/rdma/rdma_endpoint.h"

#include <fmt/format.h>

#include "base/error.h"
#include "transport/nccl/linked_endpoint.h"
#include "transport/rdma/launch.h"
#include "transport/rdma/rdma_link.h"

namespace lamina::rdma {
namespace {

std::string version_name(int code) {
  return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

}  // namespace

// A newer library serves kernels of older headers.
void require_version(const nccl::Library& library) {
  int found = 0;
  if (library.version(&found) == ncclSuccess && found >= NCCL_VERSION_CODE) return;
  throw Error(StatusCode::kUnimplemented,
              fmt::format("--transport rdma needs the library of NCCL {} or newer, and this host's "
                          "is {}: install the Python package nvidia-nccl-cu13 and add its folder "
                          "to LD_LIBRARY_PATH, or --transport nccl",
                          version_name(NCCL_VERSION_CODE),
                          version_name(found)));
}

std::unique_ptr<PendingEndpoint> prepare_rdma(const EndpointConfig& config,
                                              const Libraries& libraries) {
  return nccl::prepare_linked(
      config, [libraries](const nccl::LinkConfig& link, FileHandle socket, Deadline deadline) {
        return std::make_unique<RdmaLink>(libraries, link, std::move(socket), deadline);
      });
}

std::unique_ptr<PendingEndpoint> prepare_rdma(const EndpointConfig& config) {
  const nccl::Library& library = nccl::require_gpu_and_library(config);
  require_version(library);
  load_kernels(config.device);
  return prepare_rdma(config, {.nccl = library, .gin = gin_library()});
}

}  // namespace lamina::rdma
