#include "worker/rank_exchange.h"

#include <array>
#include <utility>

#include "base/check.h"
#include "device/buffer.h"
#include "device/gpu_collective.h"
#include "transport/collective.h"

namespace lamina {
namespace {

class HostExchange final : public RankExchange {
 public:
  explicit HostExchange(std::unique_ptr<Collective> collective)
      : collective_(std::move(collective)) {}

  Status exchange(std::span<const std::byte> mine) override { return collective_->exchange(mine); }
  [[nodiscard]] std::span<const std::span<const std::byte>> all() const override {
    return collective_->all();
  }
  void abort() override { collective_->abort(); }

 private:
  std::unique_ptr<Collective> collective_;
};

// Ranks meet on the host before and after they enqueue a gather: it runs once all have enqueued it,
// and CUDA calls that wait for a device (a kernel's first load, an allocation) would wait for ever
// if a rank made one in between. Replayed graphs, which are decoding steps, do not come by here.
class GpuExchange final : public RankExchange {
 public:
  GpuExchange(std::unique_ptr<Collective> meeting,
              std::unique_ptr<GpuCollective> gpus,
              size_t max_bytes,
              StreamView stream)
      : meeting_(std::move(meeting)),
        gathered_(memory_of(use_device_of(stream).device().kind),
                  static_cast<size_t>(meeting_->num_ranks()) * max_bytes),
        gpus_(std::move(gpus)),
        all_(static_cast<size_t>(meeting_->num_ranks())) {}

  Status exchange(std::span<const std::byte> mine) override {
    LAMINA_CHECK(mine.size() * all_.size() <= gathered_.size_bytes());
    LAMINA_RETURN_IF_ERROR(meet());
    LAMINA_RETURN_IF_ERROR(gpus_->all_gather(mine.data(), gathered_.data(), mine.size()));
    for (size_t rank = 0; rank < all_.size(); ++rank) {
      all_[rank] = gathered_.bytes().subspan(rank * mine.size(), mine.size());
    }
    return meet();
  }
  [[nodiscard]] std::span<const std::span<const std::byte>> all() const override { return all_; }
  void abort() override {
    meeting_->abort();
    gpus_->abort();
  }

 private:
  Status meet() {
    constexpr std::array kHere = {std::byte{1}};
    return meeting_->exchange(kHere);
  }

  std::unique_ptr<Collective> meeting_;
  Buffer gathered_;  // parts one after the other, by rank
  std::unique_ptr<GpuCollective> gpus_;
  std::vector<std::span<const std::byte>> all_;
};

}  // namespace

std::vector<std::unique_ptr<RankExchange>> connect_ranks(std::span<const StreamView> streams,
                                                         size_t max_bytes,
                                                         Duration timeout) {
  const auto num_ranks = static_cast<int32_t>(streams.size());
  // One rank exchanges nothing.
  const bool is_on_gpus = num_ranks > 1 && streams.front().device().kind == DeviceKind::kCuda;
  auto on_host = connect_threads(num_ranks, is_on_gpus ? 1 : max_bytes, timeout);
  std::vector<std::unique_ptr<GpuCollective>> on_gpus;
  if (is_on_gpus) on_gpus = GpuCollective::connect(streams);
  std::vector<std::unique_ptr<RankExchange>> ranks;
  for (size_t rank = 0; rank < streams.size(); ++rank) {
    if (is_on_gpus) {
      ranks.push_back(std::make_unique<GpuExchange>(
          std::move(on_host[rank]), std::move(on_gpus[rank]), max_bytes, streams[rank]));
    } else {
      ranks.push_back(std::make_unique<HostExchange>(std::move(on_host[rank])));
    }
  }
  return ranks;
}

}  // namespace lamina
