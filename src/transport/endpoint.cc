#include "transport/endpoint.h"

#include <fmt/format.h>

#include <cstring>

#include "base/checked_math.h"
#include "base/error.h"
#include "transport/cuda_p2p/p2p_endpoint.h"
#include "transport/loopback/loopback.h"
#include "transport/nccl/nccl_endpoint.h"
#include "transport/shm/shm.h"
#include "transport/tcp/tcp.h"

namespace lamina {
namespace {

constexpr size_t kMaxSlots = 4096;
constexpr size_t kMaxTotalBytes = size_t{1} << 40;

void check_slots(const std::vector<size_t>& capacities) {
  if (capacities.size() > kMaxSlots) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("endpoint has {} slots, limit {}", capacities.size(), kMaxSlots));
  }
  std::optional<size_t> total = 0;
  for (const size_t capacity : capacities) {
    if (total) total = checked_add(*total, capacity);
  }
  if (!total || *total > kMaxTotalBytes) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("slots of an endpoint need over {} bytes", kMaxTotalBytes));
  }
}

}  // namespace

Status Endpoint::put(SlotIdx slot, std::span<const std::byte> payload, uint64_t seq) {
  const std::span<std::byte> staged = stage(slot, payload.size());
  if (!payload.empty()) std::memcpy(staged.data(), payload.data(), payload.size());
  return commit(slot, payload.size(), seq);
}

std::string_view transport_name(TransportKind kind) {
  switch (kind) {
    case TransportKind::kLoopback:
      return "loopback";
    case TransportKind::kShm:
      return "shm";
    case TransportKind::kTcp:
      return "tcp";
    case TransportKind::kCudaP2p:
      return "cuda_p2p";
    case TransportKind::kNccl:
      return "nccl";
  }
  return "unknown";
}

std::unique_ptr<PendingEndpoint> prepare_endpoint(const EndpointConfig& config) {
  check_slots(config.receive_slots);
  check_slots(config.send_slots);
  switch (config.kind) {
    case TransportKind::kLoopback:
      return prepare_loopback(config);
    case TransportKind::kShm:
      return prepare_shm(config);
    case TransportKind::kTcp:
      return prepare_tcp(config);
    case TransportKind::kCudaP2p:
      return cuda_p2p::prepare_cuda_p2p(config);
    case TransportKind::kNccl:
      return nccl::prepare_nccl(config);
  }
  throw Error(StatusCode::kInvalidArgument, "unknown transport");
}

}  // namespace lamina
