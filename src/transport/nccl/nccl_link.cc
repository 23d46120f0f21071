#include "transport/nccl/nccl_link.h"

#include <sys/socket.h>

#include "base/check.h"
#include "transport/nccl/nccl_channel.h"

namespace lamina::nccl {
namespace {

NcclLink::Slots slots_of(const std::vector<uint32_t>& all, uint32_t num_channels, size_t idx) {
  const size_t count = all.size() / num_channels;
  return {.first = static_cast<SlotIdx>(idx * count),
          .capacities = std::span(all).subspan(idx * count, count)};
}

}  // namespace

NcclLink::NcclLink(const Library& library, LinkConfig config, FileHandle socket, Deadline deadline)
    : config_(std::move(config)), socket_(std::move(socket)) {
  const int rank = config_.listens ? 0 : 1;
  for (const ncclUniqueId& id : agree(library, config_, socket_.get(), deadline)) {
    communicators_.push_back(std::make_unique<Communicator>(
        library, Communicator::Config{.id = id, .rank = rank, .device = config_.device}, deadline));
  }
}

std::unique_ptr<DeviceChannel> NcclLink::open_channel(std::span<DeviceLink* const> links,
                                                      const DeviceChannelConfig& config) {
  std::vector<NcclLink*> of_this_backend;
  of_this_backend.reserve(links.size());
  for (DeviceLink* const link : links) of_this_backend.push_back(static_cast<NcclLink*>(link));
  return std::make_unique<NcclChannel>(of_this_backend, config);
}

void NcclLink::abort() noexcept {
  ::shutdown(socket_.get(), SHUT_RDWR);
}

std::unique_ptr<Communicator> NcclLink::take_communicator(size_t channel_idx) {
  LAMINA_CHECK_LT(channel_idx, communicators_.size());
  LAMINA_CHECK(communicators_[channel_idx] != nullptr, "a channel is opened once");
  return std::move(communicators_[channel_idx]);
}

NcclLink::Slots NcclLink::receive_slots(size_t channel_idx) const {
  return slots_of(config_.receive_slots, config_.num_channels, channel_idx);
}

NcclLink::Slots NcclLink::send_slots(size_t channel_idx) const {
  return slots_of(config_.send_slots, config_.num_channels, channel_idx);
}

}  // namespace lamina::nccl
