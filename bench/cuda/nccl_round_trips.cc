#include "nccl_round_trips.h"

#include <array>
#include <memory>
#include <thread>

#include "base/error.h"
#include "device/buffer.h"
#include "device/cuda/stream.h"
#include "device/gpu_graph.h"
#include "device/gpu_stream.h"
#include "device/nccl/library.h"
#include "transport/cuda_p2p/testing/replay_times.h"

namespace lamina::bench {
namespace {

constexpr int kNumRanks = 2;

Status to_status(ncclResult_t result) {
  if (result == ncclSuccess) return {};
  return unavailable(std::string("NCCL: ") + nccl::library().error_string(result));
}

// A GPU of this process, and the thread that enqueues on it.
class Rank {
 public:
  Rank(int idx, ncclComm_t comm, uint64_t size_bytes)
      : idx_(idx),
        comm_(comm),
        size_bytes_(size_bytes),
        stream_({DeviceKind::kCuda, idx}),
        data_(MemoryKind::kCuda, (use_device_of(stream_.view()), size_bytes)) {}

  Result<std::vector<double>> run(uint32_t num_rounds, uint64_t num_replays) {
    use_device_of(stream_.view());
    const auto rounds = [&] { return enqueue(num_rounds); };
    LAMINA_RETURN_IF_ERROR(rounds());
    LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
    LAMINA_ASSIGN_OR_RETURN(const GpuGraph graph, GpuGraph::capture(stream_.view(), rounds));
    LAMINA_ASSIGN_OR_RETURN(std::vector<double> times_us,
                            cuda_p2p::testing::time_replays(graph, num_replays, stream_.view()));
    for (double& time_us : times_us) time_us /= num_rounds;
    return times_us;
  }

 private:
  Status enqueue(uint32_t num_rounds) {
    const nccl::Library& library = nccl::library();
    const int peer = 1 - idx_;
    const auto stream = cuda::raw(stream_.view());
    for (uint32_t half = 0; half < 2 * num_rounds; ++half) {
      const bool sends = half % 2 == static_cast<uint32_t>(idx_);
      LAMINA_RETURN_IF_ERROR(to_status(
          sends ? library.send(data_.data(), size_bytes_, ncclInt8, peer, comm_, stream)
                : library.receive(data_.data(), size_bytes_, ncclInt8, peer, comm_, stream)));
    }
    return {};
  }

  int idx_;
  ncclComm_t comm_;
  uint64_t size_bytes_;
  GpuStream stream_;
  Buffer data_;
};

Result<std::vector<double>> run_ranks(const std::array<ncclComm_t, kNumRanks>& comms,
                                      uint64_t size_bytes,
                                      uint32_t num_rounds,
                                      uint64_t num_replays) {
  Rank asking(0, comms[0], size_bytes);
  Rank answering(1, comms[1], size_bytes);
  Status answered;
  std::thread other([&] {
    const auto times_us = answering.run(num_rounds, num_replays);
    if (!times_us.ok()) answered = times_us.status();
  });
  auto times_us = asking.run(num_rounds, num_replays);
  other.join();
  LAMINA_RETURN_IF_ERROR(answered);
  return times_us;
}

}  // namespace

Result<std::vector<double>> nccl_round_trips_us(uint64_t size_bytes,
                                                uint32_t num_rounds,
                                                uint64_t num_replays) {
  try {
    const nccl::Library& library = nccl::library();
    const std::array devices = {0, 1};
    std::array<ncclComm_t, kNumRanks> comms{};
    LAMINA_RETURN_IF_ERROR(to_status(library.init_all(comms.data(), kNumRanks, devices.data())));
    auto times_us = run_ranks(comms, size_bytes, num_rounds, num_replays);
    for (const ncclComm_t comm : comms) (void)library.destroy(comm);
    return times_us;
  } catch (const Error& error) {
    return error.status();
  }
}

}  // namespace lamina::bench
