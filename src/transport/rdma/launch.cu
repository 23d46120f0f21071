#include <algorithm>

#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "transport/cuda_p2p/device_memory.cuh"
#include "transport/cuda_p2p/message.h"
#include "transport/rdma/launch.h"

namespace lamina::rdma {
namespace {

using cuda_p2p::BlockTeam;
using cuda_p2p::Chunk;
using cuda_p2p::DeviceMemory;
using cuda_p2p::Patience;
using cuda_p2p::Plan;
using cuda_p2p::StepBegin;

// A channel has a communicator of its own, and this context of it alone.
constexpr int kContext = 0;

// The put reads what all blocks have stored: each one's stores are before its barrier, that before
// its count, which releases, and those before the last one's, which acquires. NCCL is told to
// release all of it to the whole system, the NIC included.
__device__ void put(const Message& message) {
  const ncclDevComm& communicator = *message.communicator;
  const ncclGin gin(communicator, kContext);
  const size_t size_bytes = sizeof(MessageHeader) + size_t{message.plan.num_chunks} * sizeof(Chunk);
  gin.put(ncclTeamWorld(communicator),
          1 - communicator.rank,
          message.window,
          message.offset,
          message.window,
          message.offset,
          size_bytes,
          ncclGin_SignalInc{message.signal},
          ncclGin_None{},
          ncclCoopThread{},
          ncclGin_None{},
          ::cuda::thread_scope_thread,
          ::cuda::thread_scope_system);
}

// The place is free: the reply to what it held has come.
__device__ void send_message(const BlockTeam& team, const Message& message, uint64_t* num_stored) {
  const Plan& plan = message.plan;
  if (team.block >= plan.num_parts) return;
  if (team.block == 0 && team.thread == 0) message.header->num_chunks = plan.num_chunks;
  for (uint32_t part = team.block; part < plan.num_parts; part += team.num_blocks) {
    cuda_p2p::move_part(
        team,
        plan,
        part,
        [&](uint32_t i, Chunk& chunk) { chunk = *message.rows.at<Chunk>(i); },
        [&](uint32_t i, const Chunk& chunk) {
          DeviceMemory::store_chunk(message.payload() + i, chunk);
        });
  }
  team.sync();
  if (team.thread == 0 && cuda_p2p::stores_last<DeviceMemory>(team, plan, num_stored)) put(message);
}

__global__ void __launch_bounds__(cuda_p2p::kThreads)
    send_kernel(const __grid_constant__ Launch params) {
  if (cuda_p2p::load_begin(params.step).has_failed) return;
  send_message(
      BlockTeam(), params.messages[blockIdx.y], &params.step.state->num_stored[blockIdx.y]);
}

// By one thread. NCCL's own wait would know neither our limits nor our host's word. A signal counts
// the messages that its slot has had, its shadow those that were received.
__device__ bool wait_for_message(const ncclGin& gin,
                                 const Message& message,
                                 Patience<DeviceMemory> patience) {
  const uint64_t awaited = *gin.getSignalShadowPtr(message.signal) + 1;
  uint64_t seen = gin.readSignal(message.signal);
  while (seen < awaited) {
    if (!patience.lasts(seen)) return false;
    seen = gin.readSignal(message.signal);
  }
  return cuda_p2p::has_size(
      DeviceMemory::load_relaxed(&message.header->num_chunks), message.plan, patience);
}

__device__ void receive_message(const BlockTeam& team,
                                const Message& message,
                                const cuda_p2p::StepView& step,
                                const StepBegin& begin) {
  const Plan& plan = message.plan;
  if (team.block >= plan.num_parts) return;
  const ncclGin gin(*message.communicator, kContext);
  const Patience<DeviceMemory> patience(step, begin.base + message.use);
  if (!team.all(team.thread != 0 || wait_for_message(gin, message, patience))) return;
  if (message.rows.data != nullptr) {
    for (uint32_t part = team.block; part < plan.num_parts; part += team.num_blocks) {
      cuda_p2p::move_part(
          team,
          plan,
          part,
          [&](uint32_t i, Chunk& chunk) {
            chunk = DeviceMemory::load_chunk(message.payload() + i);
          },
          [&](uint32_t i, const Chunk& chunk) { *message.rows.at<Chunk>(i) = chunk; });
    }
  }
  // When all blocks have seen that it has come.
  if (team.thread == 0 &&
      cuda_p2p::stores_last<DeviceMemory>(team, plan, &step.state->num_stored[blockIdx.y])) {
    ++*gin.getSignalShadowPtr(message.signal);
  }
}

__global__ void __launch_bounds__(cuda_p2p::kThreads)
    receive_kernel(const __grid_constant__ Launch params) {
  const StepBegin begin = cuda_p2p::load_begin(params.step);
  const BlockTeam team;
  if (!team.all(!begin.has_failed)) return;
  receive_message(team, params.messages[blockIdx.y], params.step, begin);
}

// A block for each part of the largest message, a thread for each chunk of a part; one warp for
// messages that are waited for and not moved.
Status enqueue(void (*kernel)(Launch), const Launch& launch, StreamView stream, const char* what) {
  uint32_t num_parts = 1;
  uint32_t part_chunks = 1;
  for (uint32_t i = 0; i < launch.num_messages; ++i) {
    if (launch.messages[i].rows.data == nullptr) continue;
    num_parts = std::max(num_parts, launch.messages[i].plan.num_parts);
    part_chunks = std::max(part_chunks, launch.messages[i].plan.part_chunks);
  }
  kernel<<<dim3(num_parts, launch.num_messages),
           cuda_p2p::threads_for(part_chunks),
           0,
           cuda::raw(stream)>>>(launch);
  return cuda::to_status(cudaGetLastError(), what);
}

template <typename Kernel>
void load(Kernel* kernel) {
  cudaFuncAttributes attributes{};
  cuda::throw_if_error(cudaFuncGetAttributes(&attributes, kernel), "loading kernels of a GPU");
}

}  // namespace

void load_kernels(Device device) {
  const cuda::DeviceGuard guard(device);
  load(send_kernel);
  load(receive_kernel);
}

Status send(const Launch& launch, StreamView stream) {
  return enqueue(send_kernel, launch, stream, "sending from a GPU by a NIC");
}

Status receive(const Launch& launch, StreamView stream) {
  return enqueue(receive_kernel, launch, stream, "receiving on a GPU by a NIC");
}

}  // namespace lamina::rdma
