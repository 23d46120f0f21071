#include "transport/measure/nccl/nccl_trips.h"

#include <future>

#include "base/error.h"
#include "device/buffer.h"
#include "device/cuda/stream.h"
#include "device/gpu_graph.h"
#include "device/gpu_stream.h"
#include "device/nccl/library.h"
#include "transport/measure/cuda/replay_times.h"
#include "transport/measure/device_end.h"
#include "transport/measure/trip_times.h"

namespace lamina::measure {
namespace {

// Beyond what a batch is to last.
constexpr Duration kPatience = std::chrono::seconds(20);

Status to_status(ncclResult_t result) {
  if (result == ncclSuccess) return {};
  return unavailable(std::string("NCCL: ") + nccl::library().error_string(result));
}

// A GPU of this process, for the thread that enqueues on it.
class Rank {
 public:
  Rank(int idx, ncclComm_t comm, uint32_t size_bytes)
      : idx_(idx),
        comm_(comm),
        size_bytes_(size_bytes),
        stream_({DeviceKind::kCuda, idx}),
        data_(MemoryKind::kCuda, (use_device_of(stream_.view()), size_bytes)) {}

  Result<std::vector<double>> run(uint64_t num_replays) {
    use_device_of(stream_.view());
    const auto trips = [&] { return enqueue(); };
    LAMINA_RETURN_IF_ERROR(trips());
    LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
    LAMINA_ASSIGN_OR_RETURN(const GpuGraph graph, GpuGraph::capture(stream_.view(), trips));
    LAMINA_ASSIGN_OR_RETURN(std::vector<double> times_us,
                            time_replays(graph, num_replays, stream_.view()));
    for (double& time_us : times_us) time_us /= kGraphTrips;
    return times_us;
  }

 private:
  Status enqueue() {
    const nccl::Library& library = nccl::library();
    const int peer = 1 - idx_;
    const auto stream = cuda::raw(stream_.view());
    for (uint32_t half = 0; half < 2 * kGraphTrips; ++half) {
      const bool sends = half % 2 == static_cast<uint32_t>(idx_);
      LAMINA_RETURN_IF_ERROR(to_status(
          sends ? library.send(data_.data(), size_bytes_, ncclInt8, peer, comm_, stream)
                : library.receive(data_.data(), size_bytes_, ncclInt8, peer, comm_, stream)));
    }
    return {};
  }

  int idx_;
  ncclComm_t comm_;
  uint32_t size_bytes_;
  GpuStream stream_;
  Buffer data_;
};

}  // namespace

std::string NcclTrips::why_missing() try {
  (void)nccl::library();
  return {};
} catch (const Error& error) {
  return error.what();
}

NcclTrips::NcclTrips() {
  constexpr std::array<int, kNumRanks> kDevices = {0, 1};
  throw_if_error(to_status(nccl::library().init_all(comms_.data(), kNumRanks, kDevices.data())));
}

NcclTrips::~NcclTrips() {
  if (is_aborted_) return;
  for (const ncclComm_t comm : comms_) (void)nccl::library().destroy(comm);
}

void NcclTrips::abort() {
  is_aborted_ = true;
  for (const ncclComm_t comm : comms_) (void)nccl::library().abort(comm);
}

// A rank that has failed would keep the other waiting: the end of the communicators ends that.
Result<std::vector<double>> NcclTrips::replay(uint32_t size_bytes, uint64_t num_replays) {
  Rank asking(0, comms_[0], size_bytes);
  Rank answering(1, comms_[1], size_bytes);
  const Deadline deadline = Deadline::after(kPatience);
  const auto start = [&](Rank& rank) {
    return std::async(std::launch::async, [&] { return rank.run(num_replays); });
  };
  auto asked = start(asking);
  auto answered = start(answering);
  bool is_over = true;
  for (const auto* rank : {&asked, &answered}) {
    is_over = is_over && rank->wait_for(deadline.remaining()) == std::future_status::ready;
  }
  if (!is_over) abort();
  auto times_us = asked.get();
  LAMINA_RETURN_IF_ERROR(answered.get().status());
  if (!is_over) return deadline_exceeded("NCCL's round trips have not ended in time");
  return times_us;
}

Result<std::vector<double>> NcclTrips::times_us(uint32_t size_bytes, Duration time) {
  if (is_aborted_) return unavailable("NCCL's communicators were aborted");
  return measure_for(time, 1, [&](uint64_t count) { return replay(size_bytes, count); });
}

}  // namespace lamina::measure
