#include "transport/cuda_p2p/step_guard.h"

#include <fmt/format.h>

#include <cstring>

#include "base/check.h"
#include "transport/cuda_p2p/host_memory.h"

namespace lamina::cuda_p2p {
namespace {

StepControl& control_in(const Buffer& memory) {
  return *reinterpret_cast<StepControl*>(memory.data());
}

std::string name(Stamp stamp) {
  return fmt::format(
      "message {} of epoch {}", stamp & ((Stamp{1} << kCountBits) - 1), epoch_of(stamp));
}

}  // namespace

StepGuard::StepGuard(StreamView stream, Duration max_wait)
    : stream_(use_device_of(stream)),
      max_wait_(max_wait),
      state_(memory_of(stream.device().kind), sizeof(StepState)),
      control_(staging_of(stream.device().kind), sizeof(StepControl)),
      staged_(staging_of(stream.device().kind), sizeof(StepState)) {}

StepView StepGuard::view() const {
  return {.state = reinterpret_cast<StepState*>(state_.data()),
          .control = &control_in(control_),
          .max_wait_ns = static_cast<uint64_t>(max_wait_.count())};
}

void StepGuard::abort() {
  HostMemory::store_relaxed(&control_in(control_).abort, 1);
}

bool StepGuard::is_aborted() const {
  return HostMemory::load_relaxed(&control_in(control_).abort) != 0;
}

Stamp StepGuard::stamp_of(uint32_t use) const {
  LAMINA_CHECK(stream_.device().kind == DeviceKind::kCpu);
  return view().state->base + use;
}

Status StepGuard::status() const {
  const StepControl& control = control_in(control_);
  switch (static_cast<WaitError>(HostMemory::load_acquire(&control.error))) {
    case WaitError::kNone:
      return {};
    case WaitError::kTimedOut:
      return deadline_exceeded(fmt::format(
          "{} has not come within {} ms", name(control.awaited), max_wait_.count() / 1'000'000));
    case WaitError::kAborted:
      return unavailable(
          fmt::format("the wait for {} was ended: the peer is gone", name(control.awaited)));
    case WaitError::kWrongSize:
      return data_loss(fmt::format("{} has another size than both sides agreed on: {} bytes",
                                   name(control.awaited),
                                   control.seen * sizeof(Chunk)));
  }
  return internal_error("an unknown error of a wait");
}

Status StepGuard::begin_epoch(uint32_t epoch) {
  StepControl& control = control_in(control_);
  for (uint64_t* const word : {&control.abort, &control.error, &control.awaited, &control.seen}) {
    HostMemory::store_relaxed(word, 0);
  }
  const StepState begin = {.base = make_stamp(epoch, 0)};
  std::memcpy(staged_.data(), &begin, sizeof(begin));
  LAMINA_RETURN_IF_ERROR(copy(state_.data(), staged_.data(), sizeof(begin), stream_));
  return synchronize(stream_);
}

}  // namespace lamina::cuda_p2p
