#include <cuda_runtime.h>

#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "transport/cuda_p2p/device_memory.cuh"
#include "transport/cuda_p2p/launch.h"
#include "transport/cuda_p2p/message.h"
#include "transport/cuda_p2p/testing/conversation.h"
#include "transport/cuda_p2p/testing/pattern.h"

namespace lamina::cuda_p2p::testing {
namespace {

// Where all blocks of a grid meet, within the limits of a wait: a block that failed never comes.
class Meeting {
 public:
  __device__ Meeting(uint64_t* word, const StepView& step) : word_(word), step_(step) {}

  // After a barrier of the block, as receive_message() ends with: it puts what all of its threads
  // have read before the count.
  __device__ bool all_come(const BlockTeam& team, Stamp stamp) {
    return team.num_blocks == 1 || team.all(team.thread != 0 || wait(team, stamp));
  }

 private:
  __device__ bool wait(const BlockTeam& team, Stamp stamp) {
    awaited_ += team.num_blocks;
    Patience<DeviceMemory> patience(step_, stamp);
    uint64_t seen = DeviceMemory::count_up(word_);
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
  const StepView& step_;
  uint64_t awaited_ = 0;
};

__global__ void __launch_bounds__(kThreads, 1)
    round_trips_kernel(const __grid_constant__ RoundTrips params) {
  const BlockTeam team;
  Meeting meeting(params.meeting, params.step);
  const Stamp base = load_begin(params.step).base;
  const bool is_clock = params.asks && team.block == 0 && team.thread == 0;
  const ClockSpan begin = {DeviceMemory::now_ns(), static_cast<uint64_t>(clock64())};
  for (uint64_t round = 0; round < params.num_rounds; ++round) {
    const Stamp stamp = base + round + 1;
    const auto send = [&] {
      send_message<DeviceMemory>(
          team, params.outbox, params.plan, stamp, params.step.state->num_stored, [&](uint32_t i) {
            return params.source[i];
          });
    };
    const auto begin_cycles = clock64();
    if (params.asks) send();
    const bool came = receive_message<DeviceMemory>(
        team, params.inbox, params.plan, stamp, params.step, [&](uint32_t i, const Chunk& chunk) {
          params.sink[i] = chunk;
        });
    if (!came) return;
    // A pushed message's blocks have seen all of it, and its answer is released once all of them
    // have read it. Lines are seen and answered by their own threads alone.
    if (params.plan.form == Form::kLines && !meeting.all_come(team, stamp)) return;
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
    const auto source = [&](uint32_t i) {
      Chunk chunk = pattern(stamp, i, !params_.asks);
      if (n == params_.faulty_message && i == 0) chunk.words[3] ^= 1;
      return chunk;
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
    const auto compare = [&](uint32_t i, const Chunk& chunk) {
      const Chunk wanted = pattern(stamp, i, params_.asks);
      ++seen_;
      for (int w = 0; w < 4; ++w) wrong_ += chunk.words[w] != wanted.words[w] ? 1 : 0;
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
    add(params_.seen_chunks, seen_);
  }
  __device__ static void add(uint64_t* to, uint64_t count) {
    if (count == 0) return;
    atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(count));
  }

  const Stress& params_;
  BlockTeam team_;
  Meeting meeting_;
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

// All blocks run at once, or none does.
template <typename Params>
Status launch_together(void (*kernel)(Params),
                       uint32_t num_blocks,
                       const Params& params,
                       StreamView stream) {
  LAMINA_RETURN_IF_ERROR(cuda::to_status(
      cudaMemsetAsync(params.meeting, 0, sizeof(uint64_t), cuda::raw(stream)), "a meeting place"));
  cudaLaunchAttribute together{};
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(num_blocks);
  config.blockDim = dim3(kThreads);
  config.stream = cuda::raw(stream);
  config.attrs = &together;
  config.numAttrs = 1;
  return cuda::to_status(cudaLaunchKernelEx(&config, kernel, params), "a conversation of GPUs");
}

}  // namespace

Status enqueue(const RoundTrips& trips, StreamView stream) {
  return launch_together(round_trips_kernel, trips.plan.num_parts, trips, stream);
}

Status enqueue(const Stress& stress, StreamView stream) {
  return launch_together(stress_kernel, kStressBlocks, stress, stream);
}

}  // namespace lamina::cuda_p2p::testing
