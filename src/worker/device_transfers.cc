#include "worker/device_transfers.h"

#include <fmt/format.h>

#include <span>

namespace lamina {
namespace {

DeviceRows rows_of(const TensorView& tensor) {
  return {.data = tensor.data,
          .num_rows = static_cast<size_t>(tensor.shape[0]),
          .row_bytes = tensor.row_bytes(),
          .stride_bytes = static_cast<size_t>(tensor.row_stride) * dtype_bytes(tensor.dtype)};
}

}  // namespace

Status check_message_rows(const char* what, size_t row_bytes) {
  if (row_bytes % kDeviceRowAlignment == 0) return {};
  return {StatusCode::kUnimplemented,
          fmt::format("devices send rows of multiples of {} bytes, those of {} have {}",
                      kDeviceRowAlignment,
                      what,
                      row_bytes)};
}

// Messages of a step are counted from 1.
DeviceTransfers::DeviceTransfers(Direction direction, DeviceChannel& channel, int32_t layer)
    : direction_(direction), channel_(channel), use_(static_cast<uint32_t>(layer) + 1) {}

Status DeviceTransfers::add(size_t link_idx, SlotIdx slot, const TensorView& tensor) {
  if (tensor.empty() || tensor.shape[0] == 0) return {};
  if (num_transfers_ == transfers_.size()) LAMINA_RETURN_IF_ERROR(enqueue());
  transfers_[num_transfers_++] = {
      .link_idx = link_idx, .slot = slot, .rows = rows_of(tensor), .use = use_};
  return {};
}

Status DeviceTransfers::enqueue() {
  if (num_transfers_ == 0) return {};
  const auto added = std::span<const DeviceTransfer>(transfers_).first(num_transfers_);
  num_transfers_ = 0;
  return direction_ == Direction::kSend ? channel_.send(added) : channel_.receive(added);
}

}  // namespace lamina
