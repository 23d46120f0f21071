#include <type_traits>

#include "transport/measure/cuda/meeting.cuh"
#include "transport/measure/cuda/round_trips.h"
#include "transport/measure/device_trips.h"

namespace lamina::measure {
namespace {

using cuda_p2p::BlockTeam;
using cuda_p2p::DeviceMemory;
using cuda_p2p::Form;
using cuda_p2p::kThreads;
using cuda_p2p::Stamp;

template <bool kHasThreadPerLine>
__device__ void send(const RoundTrips& params, const BlockTeam& team, Stamp stamp) {
  const auto source = [&](uint32_t i, auto& unit) {
    unit = reinterpret_cast<const std::remove_reference_t<decltype(unit)>*>(params.source)[i];
  };
  if constexpr (kHasThreadPerLine) {
    cuda_p2p::send_line<DeviceMemory>(team, params.outbox, params.plan, stamp, source);
  } else {
    cuda_p2p::send_message<DeviceMemory>(
        team, params.outbox, params.plan, stamp, params.step.state->num_stored, source);
  }
}

template <bool kHasThreadPerLine>
__device__ bool receive(const RoundTrips& params, const BlockTeam& team, Stamp stamp) {
  const auto sink = [&](uint32_t i, const auto& unit) {
    reinterpret_cast<std::remove_cvref_t<decltype(unit)>*>(params.sink)[i] = unit;
  };
  if constexpr (kHasThreadPerLine) {
    return cuda_p2p::receive_line<DeviceMemory>(
        team, params.inbox, params.plan, stamp, params.step, sink);
  } else {
    return cuda_p2p::receive_message<DeviceMemory>(
        team, params.inbox, params.plan, stamp, params.step, sink);
  }
}

template <bool kHasThreadPerLine>
__global__ void __launch_bounds__(kThreads, 1)
    round_trips_kernel(const __grid_constant__ RoundTrips params) {
  const BlockTeam team;
  Meeting meeting(params.meeting, params.step);
  const Stamp base = cuda_p2p::load_begin(params.step).base;
  const bool is_clock = params.asks && team.block == 0 && team.thread == 0;
  const ClockSpan begin = {DeviceMemory::now_ns(), static_cast<uint64_t>(clock64())};
  for (uint64_t round = 0; round < params.num_rounds; ++round) {
    const Stamp stamp = base + round + 1;
    const auto begin_cycles = clock64();
    if (params.asks) send<kHasThreadPerLine>(params, team, stamp);
    const bool came = receive<kHasThreadPerLine>(params, team, stamp);
    if (!came) return;
    // A pushed message's blocks have seen all of it. Lines are seen by their own threads alone: a
    // round trip is over when all have come, while a block answers what it has.
    if (params.asks && params.plan.form == Form::kLines && !meeting.all_come(team, stamp)) return;
    if (!params.asks) send<kHasThreadPerLine>(params, team, stamp);
    if (is_clock && round < params.num_cycles) {
      params.cycles[round] = static_cast<uint64_t>(clock64() - begin_cycles);
    }
  }
  if (is_clock) {
    *params.span = {DeviceMemory::now_ns() - begin.ns,
                    static_cast<uint64_t>(clock64()) - begin.cycles};
  }
}

}  // namespace

Status enqueue(const RoundTrips& trips, StreamView stream) {
  const uint32_t num_blocks = trips.plan.num_parts;
  const uint32_t num_threads = cuda_p2p::threads_for(trips.plan.part_units());
  const bool has_thread_per_line =
      cuda_p2p::has_thread_per_line(trips.plan, num_blocks, num_threads);
  return launch_together(has_thread_per_line ? round_trips_kernel<true> : round_trips_kernel<false>,
                         num_blocks,
                         num_threads,
                         trips,
                         stream);
}

bool can_reach_each_other(Device a, Device b) {
  int to = 0;
  int back = 0;
  return a == b || (cudaDeviceCanAccessPeer(&to, a.idx, b.idx) == cudaSuccess && to != 0 &&
                    cudaDeviceCanAccessPeer(&back, b.idx, a.idx) == cudaSuccess && back != 0);
}

}  // namespace lamina::measure
