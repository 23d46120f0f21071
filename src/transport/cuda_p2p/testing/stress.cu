#include "transport/cuda_p2p/testing/pattern.h"
#include "transport/cuda_p2p/testing/stress.h"
#include "transport/measure/cuda/meeting.cuh"

namespace lamina::cuda_p2p::testing {
namespace {

// Messages of different slots are sent at the same time: each slot has a count of its own.
static_assert(kStressSlots <= kMaxPeers);

class StressSide {
 public:
  __device__ explicit StressSide(const Stress& params)
      : params_(params),
        meeting_(params.meeting, params.step),
        base_(load_begin(params.step).base) {}

  // Requests are sent as the reply to the one before in their slot has come.
  __device__ void ask() {
    constexpr Rotation kRotation{.num_slots = kStressSlots};
    for (uint64_t n = 1; n <= params_.num_messages + kStressSlots; ++n) {
      const uint64_t reply = kRotation.reply_before(n);
      if (reply != 0 && !take(reply)) break;
      if (n <= params_.num_messages) give(n);
    }
    tell();
  }
  __device__ void answer() {
    for (uint64_t n = 1; n <= params_.num_messages && take(n); ++n) give(n);
    tell();
  }

 private:
  __device__ Plan plan_of(uint64_t n) const {
    return make_plan(stress_bytes(n, params_.max_bytes), params_.limits);
  }
  __device__ void give(uint64_t n) {
    const Stamp stamp = base_ + n;
    const auto slot = static_cast<uint32_t>(n % kStressSlots);
    const auto source = [&](uint32_t i, auto& unit) {
      constexpr uint32_t kUnits = sizeof(Chunk) / sizeof(unit);
      fill(unit, stamp, i, !params_.asks);
      // The last word of the first chunk.
      if (n == params_.faulty_message && i == kUnits - 1) unit.words[4 / kUnits - 1] ^= 1;
    };
    send_message<DeviceMemory>(team_,
                               params_.outboxes[slot],
                               plan_of(n),
                               stamp,
                               &params_.step.state->num_stored[slot],
                               source);
  }
  // Nobody goes on before all have read.
  __device__ bool take(uint64_t n) {
    const Stamp stamp = base_ + n;
    const auto compare = [&](uint32_t i, const auto& unit) {
      auto wanted = unit;
      fill(wanted, stamp, i, params_.asks);
      for (size_t w = 0; w < sizeof(unit) / sizeof(uint32_t); ++w) {
        wrong_ += unit.words[w] != wanted.words[w] ? 1 : 0;
        ++seen_;
      }
    };
    return receive_message<DeviceMemory>(team_,
                                         params_.inboxes[n % kStressSlots],
                                         plan_of(n),
                                         stamp,
                                         params_.step,
                                         compare) &&
           meeting_.all_come(team_, stamp);
  }
  __device__ void tell() {
    add(params_.wrong_words, wrong_);
    add(params_.seen_words, seen_);
  }
  __device__ static void add(uint64_t* to, uint64_t count) {
    if (count == 0) return;
    atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(count));
  }

  const Stress& params_;
  BlockTeam team_;
  measure::Meeting meeting_;
  Stamp base_;
  uint64_t wrong_ = 0;
  uint64_t seen_ = 0;
};

__global__ void __launch_bounds__(kThreads, 1)
    stress_kernel(const __grid_constant__ Stress params) {
  StressSide side(params);
  if (params.asks) {
    side.ask();
  } else {
    side.answer();
  }
}

}  // namespace

Status enqueue(const Stress& stress, StreamView stream) {
  return measure::launch_together(stress_kernel, kStressBlocks, cuda_p2p::kThreads, stress, stream);
}

}  // namespace lamina::cuda_p2p::testing
