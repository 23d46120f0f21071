// Linked instead of measure/cuda/ where the build has no CUDA.
#include "transport/measure/cuda/replay_times.h"
#include "transport/measure/cuda/round_trips.h"
#include "transport/measure/device_trips.h"

namespace lamina::measure {
namespace {

constexpr const char* kMessage = "this build of lamina has no CUDA";

}  // namespace

Status enqueue(const RoundTrips& /*trips*/, StreamView /*stream*/) {
  return unimplemented(kMessage);
}

Result<std::vector<double>> time_replays(const GpuGraph& /*graph*/,
                                         uint64_t /*count*/,
                                         StreamView /*stream*/) {
  return unimplemented(kMessage);
}

bool can_reach_each_other(Device /*a*/, Device /*b*/) {
  return false;
}

}  // namespace lamina::measure
