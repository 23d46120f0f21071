#include "transport/cuda_p2p/host_launch.h"

#include "transport/cuda_p2p/host_memory.h"
#include "transport/cuda_p2p/message.h"

namespace lamina::cuda_p2p {
namespace {

bool has_failed(const StepView& step) {
  return HostMemory::load_relaxed(&step.state->failed) != 0;
}

bool receive_one(const Transfer& message, Stamp stamp, const StepView& step) {
  const OneThread team;
  if (message.rows.data == nullptr) {
    return wait_for_pushed<HostMemory>(team, message.slot, message.plan, stamp, step);
  }
  return receive_message<HostMemory>(
      team, message.slot, message.plan, stamp, step, [&](uint32_t i, const Chunk& chunk) {
        *message.rows.chunk(i) = chunk;
      });
}

}  // namespace

Status host::send(const Transfers& transfers) {
  if (has_failed(transfers.step)) return {};
  for (uint32_t i = 0; i < transfers.num_messages; ++i) {
    const Transfer& message = transfers.messages[i];
    send_message<HostMemory>(OneThread(),
                             message.slot,
                             message.plan,
                             transfers.step.state->base + message.use,
                             nullptr,
                             [&](uint32_t chunk) { return *message.rows.chunk(chunk); });
  }
  return {};
}

Status host::receive(const Transfers& transfers) {
  for (uint32_t i = 0; i < transfers.num_messages; ++i) {
    const Transfer& message = transfers.messages[i];
    const Stamp stamp = transfers.step.state->base + message.use;
    if (has_failed(transfers.step) || !receive_one(message, stamp, transfers.step)) {
      return unavailable("the wait for a message between devices has ended");
    }
  }
  return {};
}

}  // namespace lamina::cuda_p2p
