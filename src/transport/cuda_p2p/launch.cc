#include "transport/cuda_p2p/launch.h"

#include <string>

#include "transport/cuda_p2p/gpu_launch.h"
#include "transport/cuda_p2p/host_launch.h"
#include "transport/device_link.h"

namespace lamina::cuda_p2p {
namespace {

bool fits(const SlotView& slot, const Plan& plan) {
  const uint32_t room = plan.form == Form::kLines ? slot.num_line_chunks : slot.num_chunks;
  return plan.num_chunks > 0 && plan.num_chunks <= room;
}

Status check(const Transfers& transfers) {
  if (transfers.num_messages == 0 || transfers.num_messages > kMaxPeers) {
    return invalid_argument("1 to " + std::to_string(kMaxPeers) + " messages go in one launch");
  }
  for (uint32_t i = 0; i < transfers.num_messages; ++i) {
    const Transfer& message = transfers.messages[i];
    if (!fits(message.slot, message.plan))
      return invalid_argument("a message has no room in its slot");
  }
  return {};
}

Status check_places(const Transfers& transfers) {
  for (uint32_t i = 0; i < transfers.num_messages; ++i) {
    const Transfer& message = transfers.messages[i];
    if (message.rows.data == nullptr && message.plan.form == Form::kLines) {
      return invalid_argument("a message in lines has to be unpacked");
    }
  }
  return {};
}

Status check(const Merge& merge) {
  if (merge.num_sources == 0 || merge.num_sources > kMaxPeers || merge.shape.num_elements() == 0) {
    return invalid_argument("nothing to merge, or from too many");
  }
  if (merge.out_stride % kPartialFloats != 0 ||
      merge.out_stride < merge.shape.num_heads * merge.shape.row_chunks * kPartialFloats) {
    return invalid_argument("merged rows overlap, or do not begin at whole chunks");
  }
  for (uint32_t i = 0; i < merge.num_sources; ++i) {
    const PartialSource& source = merge.sources[i];
    const uint32_t num_rows = merge.shape.num_tokens * (source.head_end - source.head_begin);
    const uint32_t size_bytes = partial_bytes(num_rows, merge.shape.row_chunks * 4);
    if (!fits(source.slot, source.plan) || source.plan.num_chunks != chunks_of(size_bytes)) {
      return invalid_argument("a partial has another size than its rows");
    }
  }
  return {};
}

bool is_on_cpu(StreamView stream) {
  return stream.device().kind == DeviceKind::kCpu;
}

}  // namespace

Status send(const Transfers& transfers, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(transfers));
  return is_on_cpu(stream) ? host::send(transfers) : gpu::send(transfers, stream);
}

Status receive(const Transfers& transfers, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(transfers));
  LAMINA_RETURN_IF_ERROR(check_places(transfers));
  return is_on_cpu(stream) ? host::receive(transfers) : gpu::receive(transfers, stream);
}

Status receive_merged(const Merge& merge, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(merge));
  return is_on_cpu(stream) ? host::receive_merged(merge) : gpu::receive_merged(merge, stream);
}

Status advance(const StepView& step, uint32_t num_messages, StreamView stream) {
  if (!is_on_cpu(stream)) return gpu::advance(step, num_messages, stream);
  step.state->base += num_messages;
  return {};
}

}  // namespace lamina::cuda_p2p
