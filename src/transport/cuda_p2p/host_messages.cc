#include "transport/cuda_p2p/host_messages.h"

#include <cstring>

#include "base/check.h"
#include "transport/cuda_p2p/host_memory.h"
#include "transport/cuda_p2p/message.h"

namespace lamina::cuda_p2p {
namespace {

void check(const SlotView& slot, const Plan& plan, size_t size_bytes) {
  LAMINA_CHECK_EQ(size_bytes, plan.num_chunks * sizeof(Chunk));
  LAMINA_CHECK_LE(plan.num_chunks,
                  plan.form == Form::kLines ? slot.num_line_chunks : slot.num_chunks);
}

}  // namespace

void put(const SlotView& slot, const Plan& plan, Stamp stamp, std::span<const std::byte> payload) {
  check(slot, plan, payload.size());
  send_message<HostMemory>(OneThread(), slot, plan, stamp, nullptr, [&](uint32_t i, auto& unit) {
    std::memcpy(&unit, &payload[i * sizeof(unit)], sizeof(unit));
  });
}

bool has_begun(const SlotView& slot, const Plan& plan, Stamp stamp) {
  if (plan.form == Form::kPushed) {
    return HostMemory::load_relaxed(&slot.words->released) >= stamp;
  }
  return has_mark(HostMemory::load_line(slot.lines), mark_of(stamp));
}

Status take(const SlotView& slot,
            const Plan& plan,
            Stamp stamp,
            const StepView& step,
            std::span<std::byte> payload) {
  check(slot, plan, payload.size());
  const auto sink = [&](uint32_t i, const auto& unit) {
    std::memcpy(&payload[i * sizeof(unit)], &unit, sizeof(unit));
  };
  if (receive_message<HostMemory>(OneThread(), slot, plan, stamp, step, sink)) return {};
  return unavailable("the wait for a message from a GPU has ended");
}

}  // namespace lamina::cuda_p2p
