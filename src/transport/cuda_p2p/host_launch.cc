#include "transport/cuda_p2p/host_launch.h"

#include "tensor/dtype.h"
#include "transport/cuda_p2p/host_memory.h"
#include "transport/cuda_p2p/message.h"

namespace lamina::cuda_p2p {
namespace {

bool has_failed(const StepView& step) {
  return HostMemory::load_relaxed(&step.state->failed) != 0;
}

Status wait_has_ended() {
  return unavailable("the wait for a message between devices has ended");
}

void store_merged(const Merge& merge, uint32_t element, const PartialChunk& merged) {
  const size_t first = merge.shape.place_of(element, merge.out_stride);
  for (uint32_t i = 0; i < kPartialFloats; ++i) {
    if (merge.out_is_bf16) {
      static_cast<BFloat16*>(merge.out)[first + i] = to_bf16(merged.out[i]);
    } else {
      static_cast<float*>(merge.out)[first + i] = merged.out[i];
    }
  }
  if (merge.lse == nullptr || element % merge.shape.row_chunks != 0) return;
  merge.lse[element / merge.shape.row_chunks] = merged.lse;
}

bool receive_one(const Transfer& message, Stamp stamp, const StepView& step) {
  const OneThread team;
  if (message.rows.data == nullptr) {
    return wait_for_pushed<HostMemory>(team, message.slot, message.plan, stamp, step);
  }
  return receive_message<HostMemory>(
      team, message.slot, message.plan, stamp, step, [&](uint32_t i, const auto& unit) {
        *message.rows.at<std::remove_cvref_t<decltype(unit)>>(i) = unit;
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
                             [&](uint32_t unit_idx, auto& unit) {
                               using Unit = std::remove_reference_t<decltype(unit)>;
                               unit = *message.rows.at<Unit>(unit_idx);
                             });
  }
  return {};
}

Status host::receive(const Transfers& transfers) {
  for (uint32_t i = 0; i < transfers.num_messages; ++i) {
    const Transfer& message = transfers.messages[i];
    const Stamp stamp = transfers.step.state->base + message.use;
    if (has_failed(transfers.step) || !receive_one(message, stamp, transfers.step)) {
      return wait_has_ended();
    }
  }
  return {};
}

Status host::receive_merged(const Merge& merge) {
  const auto store = [&](uint32_t element, const PartialChunk& merged) {
    store_merged(merge, element, merged);
  };
  const bool came = !has_failed(merge.step) && merge_messages<HostMemory>(OneThread(),
                                                                          merge.sources,
                                                                          merge.num_sources,
                                                                          merge.shape,
                                                                          merge.step,
                                                                          merge.step.state->base,
                                                                          store);
  return came ? Status() : wait_has_ended();
}

}  // namespace lamina::cuda_p2p
