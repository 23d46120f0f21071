#include "engine/replica_links.h"

#include <future>
#include <utility>

namespace lamina {
namespace {

// The other side is a thread of this process.
constexpr Duration kConnectTimeout = std::chrono::seconds(10);

// Of one rank, from a replica's device to the next one's, which has the slots. There is no such
// thing as a link of one direction: what the other side has is never used.
ThreadEnds connect_devices(
    Device from, Device to, const CarriedSlots& slots, PeerId id, int32_t num_micro_batches) {
  const auto count = static_cast<uint32_t>(num_micro_batches);
  const std::vector<uint32_t> unused(count, kDeviceRowAlignment);
  EndpointConfig sender{.kind = TransportKind::kCudaP2p,
                        .self = id,
                        .peer = {id.id + 1, id.epoch},
                        .receive_slots = {0},
                        .send_slots = {0},
                        .listens = false,
                        .device = from,
                        .num_device_channels = count,
                        .device_receive_slots = unused,
                        .device_send_slots = slots.all(num_micro_batches)};
  EndpointConfig receiver = sender;
  std::swap(receiver.self, receiver.peer);
  std::swap(receiver.device_receive_slots, receiver.device_send_slots);
  receiver.listens = true;
  receiver.device = to;
  return connect_threads(sender, receiver);
}

}  // namespace

// Devices' ends wait for each other.
ThreadEnds connect_threads(const EndpointConfig& a, const EndpointConfig& b) {
  const auto pending_a = prepare_endpoint(a);
  const auto pending_b = prepare_endpoint(b);
  const std::string blob_a = pending_a->blob();
  const std::string blob_b = pending_b->blob();
  const Deadline deadline = Deadline::after(kConnectTimeout);
  auto end_b =
      std::async(std::launch::async, [&] { return pending_b->complete(blob_a, deadline); });
  auto end_a = pending_a->complete(blob_b, deadline);
  return {std::move(end_a), end_b.get()};
}

std::vector<DeviceNeighbours> connect_devices(const ModelProgram& program,
                                              std::span<const StreamView> streams,
                                              uint64_t epoch) {
  std::vector<DeviceNeighbours> neighbours(streams.size());
  const Rotation& rotation = program.rotation;
  if (rotation.stride() == 1) return neighbours;
  const auto num_ranks = static_cast<size_t>(program.num_ranks());
  for (size_t i = 0; i < streams.size(); ++i) {
    const size_t rank = i % num_ranks;
    const int32_t replica = rotation.replica_after(static_cast<int32_t>(i / num_ranks));
    const size_t after = static_cast<size_t>(replica) * num_ranks + rank;
    const CarriedSlots slots = CarriedSlots::of(program.ranks[rank].sliced, program.step_limits());
    ThreadEnds ends = connect_devices(streams[i].device(),
                                      streams[after].device(),
                                      slots,
                                      {2 * i + 1, epoch},
                                      rotation.num_micro_batches);
    neighbours[i].after = std::move(ends.a);
    neighbours[after].before = std::move(ends.b);
    neighbours[i].slots = slots;
  }
  return neighbours;
}

}  // namespace lamina
