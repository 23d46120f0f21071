#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "device/cuda/error.h"
#include "device/cuda/graph_memsets.h"

namespace lamina::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kMaxBlocks = 128;

// `value` to each of `width` elements of `height` rows, `pitch` bytes apart.
template <typename Element>
__global__ void __launch_bounds__(kThreads)
    fill(std::byte* to, size_t pitch, Element value, size_t width, size_t height) {
  for (size_t i = blockIdx.x * kThreads + threadIdx.x; i < width * height;
       i += size_t{gridDim.x} * kThreads) {
    reinterpret_cast<Element*>(to + i / width * pitch)[i % width] = value;
  }
}

template <typename Element>
cudaError_t add_fill(cudaGraph_t graph,
                     const std::vector<cudaGraphNode_t>& after,
                     const cudaMemsetParams& memset,
                     cudaGraphNode_t& added) {
  auto* to = static_cast<std::byte*>(memset.dst);
  size_t pitch = memset.pitch;
  auto value = static_cast<Element>(memset.value);
  size_t width = memset.width;
  size_t height = memset.height;
  void* arguments[] = {&to, &pitch, &value, &width, &height};
  cudaKernelNodeParams kernel{};
  kernel.func = reinterpret_cast<void*>(fill<Element>);
  kernel.gridDim = dim3(static_cast<unsigned>(
      std::clamp<size_t>((width * height + kThreads - 1) / kThreads, 1, kMaxBlocks)));
  kernel.blockDim = dim3(kThreads);
  kernel.kernelParams = arguments;
  return cudaGraphAddKernelNode(&added, graph, after.data(), after.size(), &kernel);
}

cudaError_t add_fill(cudaGraph_t graph,
                     const std::vector<cudaGraphNode_t>& after,
                     const cudaMemsetParams& memset,
                     cudaGraphNode_t& added) {
  switch (memset.elementSize) {
    case 1:
      return add_fill<uint8_t>(graph, after, memset, added);
    case 2:
      return add_fill<uint16_t>(graph, after, memset, added);
    default:
      return add_fill<uint32_t>(graph, after, memset, added);
  }
}

cudaError_t replace(cudaGraph_t graph, cudaGraphNode_t memset) {
  cudaMemsetParams params{};
  size_t num_before = 0;
  size_t num_after = 0;
  cudaError_t error = cudaGraphMemsetNodeGetParams(memset, &params);
  const auto then = [&](auto call, auto... arguments) {
    if (error == cudaSuccess) error = call(arguments...);
  };
  then(cudaGraphNodeGetDependencies, memset, nullptr, nullptr, &num_before);
  then(cudaGraphNodeGetDependentNodes, memset, nullptr, nullptr, &num_after);
  std::vector<cudaGraphNode_t> before(num_before);
  std::vector<cudaGraphNode_t> after(num_after);
  then(cudaGraphNodeGetDependencies, memset, before.data(), nullptr, &num_before);
  then(cudaGraphNodeGetDependentNodes, memset, after.data(), nullptr, &num_after);
  if (error != cudaSuccess) return error;
  cudaGraphNode_t added = nullptr;
  error = add_fill(graph, before, params, added);
  const std::vector<cudaGraphNode_t> from(after.size(), added);
  then(cudaGraphAddDependencies, graph, from.data(), after.data(), nullptr, after.size());
  then(cudaGraphDestroyNode, memset);
  return error;
}

}  // namespace

Status replace_memsets(cudaGraph_t graph) {
  constexpr const char* kWhat = "replacing memsets of a CUDA graph";
  size_t count = 0;
  LAMINA_RETURN_IF_ERROR(to_status(cudaGraphGetNodes(graph, nullptr, &count), kWhat));
  std::vector<cudaGraphNode_t> nodes(count);
  LAMINA_RETURN_IF_ERROR(to_status(cudaGraphGetNodes(graph, nodes.data(), &count), kWhat));
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    LAMINA_RETURN_IF_ERROR(to_status(cudaGraphNodeGetType(node, &type), kWhat));
    if (type != cudaGraphNodeTypeMemset) continue;
    LAMINA_RETURN_IF_ERROR(to_status(replace(graph, node), kWhat));
  }
  return {};
}

}  // namespace lamina::cuda
