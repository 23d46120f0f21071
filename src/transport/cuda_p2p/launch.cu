#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <span>
#include <string_view>
#include <type_traits>

#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "transport/cuda_p2p/device_memory.cuh"
#include "transport/cuda_p2p/gpu_launch.h"

namespace lamina::cuda_p2p {
namespace {

// A row of the grid for each message. Base and failure are one load. The waits of kernels before
// are over when one begins: a launch that sends does so with all of its blocks or with none, and
// every block of a message is counted. In a launch that receives the failure may come at any time,
// so that a block's threads agree on it.
template <bool kHasThreadPerLine>
__global__ void __launch_bounds__(kThreads) send_kernel(const __grid_constant__ Transfers params) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const Transfer& message = params.messages[blockIdx.y];
  const StepBegin begin = load_begin(params.step);
  if (begin.has_failed) return;
  const Stamp stamp = begin.base + message.use;
  const auto source = [&](uint32_t i, auto& unit) {
    unit = *message.rows.at<std::remove_reference_t<decltype(unit)>>(i);
  };
  if constexpr (kHasThreadPerLine) {
    send_line<DeviceMemory>(BlockTeam(), message.slot, message.plan, stamp, source);
  } else {
    send_message<DeviceMemory>(BlockTeam(),
                               message.slot,
                               message.plan,
                               stamp,
                               &params.step.state->num_stored[blockIdx.y],
                               source);
  }
}

template <bool kHasThreadPerLine>
__global__ void __launch_bounds__(kThreads)
    receive_kernel(const __grid_constant__ Transfers params) {
  wait_for_previous_kernel();
  const Transfer& message = params.messages[blockIdx.y];
  const StepBegin begin = load_begin(params.step);
  const BlockTeam team;
  if (!team.all(!begin.has_failed)) return;
  const Stamp stamp = begin.base + message.use;
  const auto sink = [&](uint32_t i, const auto& unit) {
    *message.rows.at<std::remove_cvref_t<decltype(unit)>>(i) = unit;
  };
  if constexpr (kHasThreadPerLine) {
    receive_line<DeviceMemory>(team, message.slot, message.plan, stamp, params.step, sink);
  } else if (message.rows.data != nullptr) {
    receive_message<DeviceMemory>(team, message.slot, message.plan, stamp, params.step, sink);
  } else if (team.block == 0) {
    wait_for_pushed<DeviceMemory>(team, message.slot, message.plan, stamp, params.step);
  }
}

template <bool kOutIsBf16>
__device__ void store_merged(const Merge& params, uint32_t element, const PartialChunk& merged) {
  // Rows begin at whole chunks.
  const size_t vector = params.shape.place_of(element, params.out_stride) / kPartialFloats;
  if constexpr (kOutIsBf16) {
    const __nv_bfloat162 pairs[] = {__floats2bfloat162_rn(merged.out[0], merged.out[1]),
                                    __floats2bfloat162_rn(merged.out[2], merged.out[3])};
    static_cast<uint2*>(params.out)[vector] = {*reinterpret_cast<const uint32_t*>(&pairs[0]),
                                               *reinterpret_cast<const uint32_t*>(&pairs[1])};
  } else {
    static_cast<float4*>(params.out)[vector] = {
        merged.out[0], merged.out[1], merged.out[2], merged.out[3]};
  }
  if (params.lse == nullptr || element % params.shape.row_chunks != 0) return;
  params.lse[element / params.shape.row_chunks] = merged.lse;
}

template <bool kOutIsBf16>
__global__ void __launch_bounds__(kThreads) merge_kernel(const __grid_constant__ Merge params) {
  wait_for_previous_kernel();
  const StepBegin begin = load_begin(params.step);
  const BlockTeam team;
  if (!team.all(!begin.has_failed)) return;
  merge_messages<DeviceMemory>(team,
                               params.sources,
                               params.num_sources,
                               params.shape,
                               params.step,
                               begin.base,
                               [&](uint32_t element, const PartialChunk& merged) {
                                 store_merged<kOutIsBf16>(params, element, merged);
                               });
}

__global__ void advance_kernel(StepState* state, uint32_t num_messages) {
  allow_next_kernel();
  wait_for_previous_kernel();
  state->base += num_messages;
}

template <typename Kernel>
void load(Kernel* kernel) {
  cudaFuncAttributes attributes{};
  cuda::throw_if_error(cudaFuncGetAttributes(&attributes, kernel), "loading kernels of a GPU");
}

// Hopper and later.
bool starts_kernels_early() {
  int device = 0;
  int major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major >= 9;
}

struct Grid {
  dim3 blocks;
  uint32_t threads = kThreads;
};

// Enqueues a kernel that calls wait_for_previous_kernel() first.
template <typename... Params>
Status launch(void (*kernel)(Params...),
              const Grid& grid,
              StreamView stream,
              std::string_view what,
              const std::type_identity_t<Params>&... params) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = dim3(grid.threads);
  config.stream = cuda::raw(stream);
  config.attrs = &early;
  config.numAttrs = starts_kernels_early() ? 1 : 0;
  return cuda::to_status(cudaLaunchKernelEx(&config, kernel, params...), what);
}

// A block for each part of the largest message, a thread for each unit of a part; one warp for
// messages that are waited for and not moved.
Grid grid_of(const Transfers& transfers) {
  uint32_t num_parts = 1;
  uint32_t part_units = 1;
  for (uint32_t i = 0; i < transfers.num_messages; ++i) {
    const Transfer& message = transfers.messages[i];
    if (message.rows.data == nullptr) continue;
    num_parts = std::max(num_parts, message.plan.num_parts);
    part_units = std::max(part_units, message.plan.part_units());
  }
  return {.blocks = {num_parts, transfers.num_messages}, .threads = threads_for(part_units)};
}

bool has_thread_per_line(const Transfers& transfers, const Grid& grid) {
  const std::span messages(transfers.messages, transfers.num_messages);
  return std::ranges::all_of(messages, [&](const Transfer& message) {
    return has_thread_per_line(message.plan, grid.blocks.x, grid.threads);
  });
}

}  // namespace

void load_kernels(Device device) {
  const cuda::DeviceGuard guard(device);
  load(send_kernel<false>);
  load(send_kernel<true>);
  load(receive_kernel<false>);
  load(receive_kernel<true>);
  load(merge_kernel<false>);
  load(merge_kernel<true>);
  load(advance_kernel);
}

Status gpu::send(const Transfers& transfers, StreamView stream) {
  const Grid grid = grid_of(transfers);
  const auto kernel = has_thread_per_line(transfers, grid) ? send_kernel<true> : send_kernel<false>;
  return launch(kernel, grid, stream, "sending from a GPU", transfers);
}

Status gpu::receive(const Transfers& transfers, StreamView stream) {
  const Grid grid = grid_of(transfers);
  const auto kernel =
      has_thread_per_line(transfers, grid) ? receive_kernel<true> : receive_kernel<false>;
  return launch(kernel, grid, stream, "receiving on a GPU", transfers);
}

Status gpu::receive_merged(const Merge& merge, StreamView stream) {
  const uint32_t blocks =
      std::min(divide_up(merge.shape.num_elements(), kThreads), kMaxMergeBlocks);
  const auto kernel = merge.out_is_bf16 ? merge_kernel<true> : merge_kernel<false>;
  return launch(kernel, {dim3(blocks)}, stream, "merging on a GPU what others computed", merge);
}

Status gpu::advance(const StepView& step, uint32_t num_messages, StreamView stream) {
  return launch(
      advance_kernel, {dim3(1), 1}, stream, "ending a step on a GPU", step.state, num_messages);
}

}  // namespace lamina::cuda_p2p
