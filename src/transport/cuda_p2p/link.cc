#include "transport/cuda_p2p/link.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"
#include "transport/cuda_p2p/descriptor_socket.h"
#include "transport/cuda_p2p/launch.h"

namespace lamina::cuda_p2p {
namespace {

constexpr uint64_t kMagic = 0x5032504E494D414CULL;  // "LAMINP2P"
constexpr uint32_t kVersion = 2;

// What goes beside the descriptor of an inbox. Between processes of one host alone.
struct Hello {
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  Place place{};
  PeerId from;
  PeerId to;
  Token token{};
  uint64_t receive_digest = 0;
  uint64_t send_digest = 0;
  Limits limits;
  uint32_t padding = 0;
};
static_assert(sizeof(Hello) == 96);

uint64_t digest(const std::vector<uint32_t>& capacities) {
  return slots_digest(std::vector<size_t>(capacities.begin(), capacities.end()));
}

Hello make_hello(const LinkConfig& config) {
  return {.place = config.place,
          .from = config.self,
          .to = config.peer,
          .token = config.token,
          .receive_digest = digest(config.receive_slots),
          .send_digest = digest(config.send_slots),
          .limits = config.limits};
}

void check(const Hello& hello, const LinkConfig& config) {
  if (hello.magic != kMagic || hello.version != kVersion) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("the other process speaks no version {} of this link", kVersion));
  }
  if (!equal_constant_time(hello.token, config.token) || hello.from != config.peer ||
      hello.to != config.self) {
    throw Error(StatusCode::kUnauthenticated, "another process, epoch or token than expected");
  }
  if (hello.place != config.place || hello.receive_digest != digest(config.send_slots) ||
      hello.send_digest != digest(config.receive_slots) || hello.limits != config.limits) {
    throw Error(StatusCode::kInvalidArgument, "the two sides of a link have other slots");
  }
}

std::unique_ptr<SharedMemory> make_inbox(const LinkConfig& config) {
  const size_t size_bytes = region_bytes(config.receive_slots, config.limits);
  return config.place == Place::kGpuMemory ? make_gpu_memory(size_bytes, config.device)
                                           : make_host_memory(size_bytes, config.device);
}

std::unique_ptr<SharedMemory> map_outbox(const LinkConfig& config, FileHandle descriptor) {
  const size_t size_bytes = region_bytes(config.send_slots, config.limits);
  return config.place == Place::kGpuMemory
             ? map_gpu_memory(std::move(descriptor), size_bytes, config.device)
             : map_host_memory(std::move(descriptor), size_bytes, config.device);
}

// Both send first: neither waits for the other to begin.
std::unique_ptr<SharedMemory> exchange(const LinkConfig& config,
                                       const SharedMemory& inbox,
                                       int socket,
                                       Deadline deadline) {
  const Hello ours = make_hello(config);
  const FileHandle descriptor = inbox.descriptor();
  send_descriptor(socket, std::as_bytes(std::span(&ours, 1)), descriptor.get());
  Hello theirs;
  FileHandle received =
      receive_descriptor(socket, std::as_writable_bytes(std::span(&theirs, 1)), deadline);
  check(theirs, config);
  return map_outbox(config, std::move(received));
}

}  // namespace

Link::Link(const LinkConfig& config, int socket, Deadline deadline)
    : place_(config.place),
      limits_(config.limits),
      inbox_(make_inbox(config)),
      outbox_(exchange(config, *inbox_, socket, deadline)),
      inbox_slots_(slot_views(inbox_->data(), config.receive_slots, config.limits)),
      outbox_slots_(slot_views(outbox_->data(), config.send_slots, config.limits)) {
  if (config.device.kind == DeviceKind::kCuda) load_kernels(config.device);
}

}  // namespace lamina::cuda_p2p
