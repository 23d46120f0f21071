#include "transport/measure/device_end.h"

#include <fmt/format.h>

namespace lamina::measure {

cuda_p2p::Plan TripKind::plan(uint32_t size_bytes) const {
  cuda_p2p::Limits limits = kTripLimits;
  if (form == cuda_p2p::Form::kPushed) limits.lines_bytes = 0;
  if (part_bytes != 0) limits.lines_part_bytes = limits.pushed_part_bytes = part_bytes;
  return cuda_p2p::make_plan(size_bytes, limits);
}

cuda_p2p::LinkConfig link_config(const DeviceEndConfig& config) {
  return {.self = {.id = config.asks ? 1U : 2U, .epoch = 1},
          .peer = {.id = config.asks ? 2U : 1U, .epoch = 1},
          .device = config.device,
          .place = config.place,
          .receive_slots = {config.max_bytes},
          .send_slots = {config.max_bytes},
          .limits = kTripLimits};
}

cuda_p2p::Chunk trip_chunk(uint32_t idx) {
  return {{idx, ~idx, idx * 0x9E3779B9U, idx + 1}};
}

Status check_trip_chunks(const cuda_p2p::Chunk* chunks, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if (chunks[i] != trip_chunk(i)) return data_loss(fmt::format("chunk {} is wrong", i));
  }
  return {};
}

}  // namespace lamina::measure
