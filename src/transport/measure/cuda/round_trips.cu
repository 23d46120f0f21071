#include <type_traits>

#include "transport/measure/cuda/meeting.cuh"
#include "transport/measure/cuda/round_trips.h"
#include "transport/measure/device_trips.h"

namespace lamina::measure {
namespace {

using cuda_p2p::BlockTeam;
using cuda_p2p::Chunk;
using cuda_p2p::DeviceMemory;
using cuda_p2p::Form;
using cuda_p2p::kThreads;
using cuda_p2p::Stamp;

__global__ void __launch_bounds__(kThreads, 1)
    round_trips_kernel(const __grid_constant__ RoundTrips params) {
  const BlockTeam team;
  Meeting meeting(params.meeting, params.step);
  const Stamp base = cuda_p2p::load_begin(params.step).base;
  const bool is_clock = params.asks && team.block == 0 && team.thread == 0;
  const ClockSpan begin = {DeviceMemory::now_ns(), static_cast<uint64_t>(clock64())};
  for (uint64_t round = 0; round < params.num_rounds; ++round) {
    const Stamp stamp = base + round + 1;
    const auto send = [&] {
      cuda_p2p::send_message<DeviceMemory>(team,
                                           params.outbox,
                                           params.plan,
                                           stamp,
                                           params.step.state->num_stored,
                                           [&](uint32_t i, auto& unit) {
                                             using Unit = std::remove_reference_t<decltype(unit)>;
                                             unit = reinterpret_cast<const Unit*>(params.source)[i];
                                           });
    };
    const auto begin_cycles = clock64();
    if (params.asks) send();
    const bool came = cuda_p2p::receive_message<DeviceMemory>(
        team, params.inbox, params.plan, stamp, params.step, [&](uint32_t i, const auto& unit) {
          reinterpret_cast<std::remove_cvref_t<decltype(unit)>*>(params.sink)[i] = unit;
        });
    if (!came) return;
    // A pushed message's blocks have seen all of it. Lines are seen by their own threads alone: a
    // round trip is over when all have come, while a block answers what it has.
    if (params.asks && params.plan.form == Form::kLines && !meeting.all_come(team, stamp)) return;
    if (!params.asks) send();
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
  return launch_together(round_trips_kernel,
                         trips.plan.num_parts,
                         cuda_p2p::threads_for(trips.plan.part_units()),
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
