#include "worker/device_transfers.h"

#include <fmt/format.h>

#include "base/check.h"

namespace lamina {

namespace {

constexpr size_t kChunkBytes = sizeof(cuda_p2p::Chunk);

uint32_t chunks_of_bytes(size_t size_bytes) {
  LAMINA_DCHECK(size_bytes % kChunkBytes == 0);
  return static_cast<uint32_t>(size_bytes / kChunkBytes);
}

// Rows without gaps are one long row.
cuda_p2p::Rows rows_of(const TensorView& tensor) {
  const size_t stride_bytes = static_cast<size_t>(tensor.row_stride) * dtype_bytes(tensor.dtype);
  return {.data = reinterpret_cast<cuda_p2p::Chunk*>(tensor.data),
          .row_chunks = chunks_of_bytes(tensor.row_bytes()),
          .stride_chunks = chunks_of_bytes(stride_bytes)};
}

}  // namespace

Status check_message_rows(const char* what, size_t row_bytes) {
  if (row_bytes % kChunkBytes == 0) return {};
  return {StatusCode::kUnimplemented,
          fmt::format("devices send rows of multiples of {} bytes, those of {} have {}",
                      kChunkBytes,
                      what,
                      row_bytes)};
}

// Messages of a step are counted from 1.
DeviceTransfers::DeviceTransfers(Direction direction,
                                 const cuda_p2p::StepGuard& guard,
                                 int32_t layer,
                                 StreamView stream)
    : direction_(direction), use_(static_cast<uint32_t>(layer) + 1), stream_(stream) {
  transfers_.step = guard.view();
}

Status DeviceTransfers::add(const cuda_p2p::Link& link, SlotIdx slot, const TensorView& tensor) {
  if (tensor.empty() || tensor.shape[0] == 0) return {};
  if (transfers_.num_messages == cuda_p2p::kMaxPeers) LAMINA_RETURN_IF_ERROR(enqueue());
  const auto size_bytes = static_cast<uint32_t>(tensor.size_bytes());
  transfers_.messages[transfers_.num_messages++] = {
      .slot = direction_ == Direction::kSend ? link.outbox(slot) : link.inbox(slot),
      .plan = link.plan(size_bytes),
      .rows = rows_of(tensor),
      .use = use_};
  return {};
}

Status DeviceTransfers::enqueue() {
  if (transfers_.num_messages == 0) return {};
  const Status status = direction_ == Direction::kSend ? cuda_p2p::send(transfers_, stream_)
                                                       : cuda_p2p::receive(transfers_, stream_);
  transfers_.num_messages = 0;
  return status;
}

}  // namespace lamina
