#include "device/gpu_graph.h"

#include <utility>

#include "base/log.h"
#include "device/cuda/error.h"
#include "device/cuda/graph_memsets.h"
#include "device/cuda/stream.h"

namespace lamina {
namespace {

struct GraphTraits {
  using Raw = cudaGraph_t;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw raw) noexcept {
    if (cudaGraphDestroy(raw) != cudaSuccess) log_error("destroying a captured CUDA graph");
  }
};
using Graph = UniqueHandle<GraphTraits>;

cudaGraphExec_t executable(void* raw) {
  return static_cast<cudaGraphExec_t>(raw);
}

}  // namespace

Result<GpuGraph> GpuGraph::capture(StreamView stream, const std::function<Status()>& enqueue) {
  // Other threads may allocate meanwhile.
  LAMINA_RETURN_IF_ERROR(
      cuda::to_status(cudaStreamBeginCapture(cuda::raw(stream), cudaStreamCaptureModeThreadLocal),
                      "beginning to capture a CUDA graph"));
  const Status status = enqueue();
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(cuda::raw(stream), &captured);
  const Graph graph(captured);
  LAMINA_RETURN_IF_ERROR(status);
  LAMINA_RETURN_IF_ERROR(cuda::to_status(ended, "capturing a CUDA graph"));
  LAMINA_RETURN_IF_ERROR(cuda::replace_memsets(graph.get()));
  cudaGraphExec_t raw = nullptr;
  LAMINA_RETURN_IF_ERROR(
      cuda::to_status(cudaGraphInstantiate(&raw, graph.get(), 0), "instantiating a CUDA graph"));
  return GpuGraph(raw);
}

GpuGraph::GpuGraph(GpuGraph&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}

GpuGraph& GpuGraph::operator=(GpuGraph&& other) noexcept {
  std::swap(raw_, other.raw_);
  return *this;
}

GpuGraph::~GpuGraph() {
  if (raw_ == nullptr) return;
  if (cudaGraphExecDestroy(executable(raw_)) != cudaSuccess) log_error("destroying a CUDA graph");
}

Status GpuGraph::launch(StreamView stream) const {
  return cuda::to_status(cudaGraphLaunch(executable(raw_), cuda::raw(stream)),
                         "launching a CUDA graph");
}

}  // namespace lamina
