#include "transport/nccl/step_count.h"

#include "transport/cuda_p2p/host_memory.h"
#include "transport/cuda_p2p/launch.h"

namespace lamina::nccl {
namespace {

cuda_p2p::StepState* state_in(const Buffer& memory) {
  return reinterpret_cast<cuda_p2p::StepState*>(memory.data());
}

}  // namespace

StepCount::StepCount(StreamView stream, Duration limit)
    : stream_(use_device_of(stream)),
      limit_(limit),
      state_(staging_of(stream.device().kind), sizeof(cuda_p2p::StepState)) {}

Status StepCount::count() {
  return cuda_p2p::advance({.state = state_in(state_)}, 1, stream_);
}

Status StepCount::begin() {
  return count();
}

Status StepCount::end() {
  return count();
}

uint64_t StepCount::seen() const {
  return cuda_p2p::HostMemory::load_relaxed(&state_in(state_)->base);
}

bool StepCount::is_late(TimePoint now) {
  const uint64_t steps = seen();
  if (steps != last_seen_) {
    last_seen_ = steps;
    since_ = now;
  }
  return steps % 2 == 1 && now - since_ > limit_;
}

}  // namespace lamina::nccl
