// A CPU's end of a link: messages to and from a GPU of the same host through pinned memory, in the
// slots and by the protocol that kernels use. One thread sends and receives a message as a whole.
#pragma once

#include <cstddef>
#include <span>

#include "base/status.h"
#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p {

// Sizes are whole chunks and fit the slot (CHECKed: they are planned at start); `plan` is of
// payload.size().
void put(const SlotView& slot, const Plan& plan, Stamp stamp, std::span<const std::byte> payload);

// Whether the message has begun to come: the rest is on its way. Never blocks, for event loops that
// wait for several.
[[nodiscard]] bool has_begun(const SlotView& slot, const Plan& plan, Stamp stamp);

// Waits for the message by polling, within the step's limits, and copies it out. kUnavailable if
// the wait ended without it; StepGuard::status() knows why.
[[nodiscard]] Status take(const SlotView& slot,
                          const Plan& plan,
                          Stamp stamp,
                          const StepView& step,
                          std::span<std::byte> payload);

}  // namespace lamina::cuda_p2p
