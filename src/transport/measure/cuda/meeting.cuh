// For kernels that stay and talk to another device's: all blocks of a grid run at once, and meet
// when a message has come as a whole. Included by such kernels alone.
#pragma once

#include <cuda_runtime.h>

#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "transport/cuda_p2p/device_memory.cuh"
#include "transport/cuda_p2p/launch.h"
#include "transport/cuda_p2p/message.h"

namespace lamina::measure {

// As many blocks may form a cluster on every GPU that has clusters.
inline constexpr uint32_t kMaxClusterBlocks = 8;

// Where all blocks of a grid meet, within the limits of a wait: a block that failed never comes. As
// a cluster they have a barrier of their own, for which blocks that have ended count as there.
class Meeting {
 public:
  __device__ Meeting(uint64_t* word, const cuda_p2p::StepView& step) : word_(word), step_(step) {}

  // After a barrier of the block, as receive_message() ends with: it puts what all of its threads
  // have read before the count.
  __device__ bool all_come(const cuda_p2p::BlockTeam& team, cuda_p2p::Stamp stamp) {
    if (team.num_blocks == 1) return true;
    if (team.num_blocks > kMaxClusterBlocks) {
      return team.all(team.thread != 0 || wait(team, stamp));
    }
    asm volatile(
        "barrier.cluster.arrive.release.aligned;\n"
        "barrier.cluster.wait.acquire.aligned;" ::
            : "memory");
    return true;
  }

 private:
  __device__ bool wait(const cuda_p2p::BlockTeam& team, cuda_p2p::Stamp stamp) {
    awaited_ += team.num_blocks;
    cuda_p2p::Patience<cuda_p2p::DeviceMemory> patience(step_, stamp);
    uint64_t seen = cuda_p2p::DeviceMemory::count_up(word_);
    while (seen < awaited_) {
      if (!patience.lasts(seen)) return false;
      seen = load_acquire(word_);
    }
    return true;
  }
  // Of what this GPU's blocks know.
  __device__ static uint64_t load_acquire(const uint64_t* from) {
    uint64_t value = 0;
    asm volatile("ld.acquire.gpu.global.b64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
    return value;
  }

  uint64_t* word_;
  const cuda_p2p::StepView& step_;
  uint64_t awaited_ = 0;
};

// All blocks run at once, or none does: kInternal then. `meeting` is for their Meeting.
template <typename Params>
Status launch_together(void (*kernel)(Params),
                       uint32_t num_blocks,
                       uint32_t num_threads,
                       const Params& params,
                       StreamView stream) {
  LAMINA_RETURN_IF_ERROR(cuda::to_status(
      cudaMemsetAsync(params.meeting, 0, sizeof(uint64_t), cuda::raw(stream)), "a meeting place"));
  cudaLaunchAttribute together[2] = {};
  together[0].id = cudaLaunchAttributeCooperative;
  together[0].val.cooperative = 1;
  together[1].id = cudaLaunchAttributeClusterDimension;
  together[1].val.clusterDim = {.x = num_blocks, .y = 1, .z = 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(num_blocks);
  config.blockDim = dim3(num_threads);
  config.stream = cuda::raw(stream);
  config.attrs = together;
  config.numAttrs = num_blocks <= kMaxClusterBlocks ? 2 : 1;
  return cuda::to_status(cudaLaunchKernelEx(&config, kernel, params), "a conversation of GPUs");
}

}  // namespace lamina::measure
