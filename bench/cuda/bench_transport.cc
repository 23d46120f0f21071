// Round trips between two processes, a GPU each, that send and receive by themselves: driven from
// one launch, and from captured graphs; the same with a thread of a CPU; and by NCCL. Prints the
// median and the 99th percentile of each size, and bytes per second both ways together; of graphs
// these are of the mean of 20 round trips. Asserts nothing. With one GPU both processes share it,
// which says nothing about speed.
#include <fmt/format.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "device/cuda/memory.h"
#include "nccl_round_trips.h"
#include "transport/cuda_p2p/testing/peer_process.h"
#include "transport/cuda_p2p/testing/talker.h"

namespace lamina::bench {
namespace {

using cuda_p2p::Form;
using cuda_p2p::Place;
using cuda_p2p::testing::Command;
using cuda_p2p::testing::GpuTalker;
using cuda_p2p::testing::kGraphRounds;
using cuda_p2p::testing::kPeerArgument;
using cuda_p2p::testing::Op;
using cuda_p2p::testing::PeerProcess;

constexpr std::array<uint32_t, 5> kSizes = {8, 16 << 10, 128 << 10, 1 << 20, 4 << 20};
constexpr Duration kMaxWait = std::chrono::seconds(10);

struct Counts {
  uint64_t rounds;   // of a launch
  uint64_t replays;  // of a graph
};

void print(const std::string& name, uint32_t size_bytes, const Result<std::vector<double>>& times) {
  if (!times.ok()) {
    fmt::print("{:<34}{:>9} B  {}\n", name, size_bytes, times.status().to_string());
    return;
  }
  const std::vector<double>& sorted = times.value();
  const double median = sorted[sorted.size() / 2];
  fmt::print("{:<34}{:>9} B {:>9.2f} us p50 {:>9.2f} us p99 {:>8.1f} GB/s\n",
             name,
             size_bytes,
             median,
             sorted[sorted.size() * 99 / 100],
             2.0 * size_bytes / median * 1e-3);
  std::fflush(stdout);
}

// All sizes and forms with one peer process.
void bench_peer(const std::string& name, const std::string& kind, Place place, Counts counts) {
  const bool has_two = cuda::num_devices() > 1;
  const PeerProcess peer(
      {kind, has_two ? "1" : "0", place == Place::kGpuMemory ? "gpu-memory" : "host-memory"});
  GpuTalker talker({DeviceKind::kCuda, 0}, place, true, peer.socket(), kMaxWait);
  uint32_t epoch = 0;
  for (const Op op : {Op::kPersistent, Op::kGraph}) {
    for (const Form form : {Form::kLines, Form::kPushed}) {
      for (const uint32_t size_bytes : kSizes) {
        if (form == Form::kLines && size_bytes > cuda_p2p::testing::kTalkLimits.lines_bytes) break;
        const Command command = {.op = op,
                                 .form = form,
                                 .size_bytes = size_bytes,
                                 .epoch = ++epoch,
                                 .count = op == Op::kGraph ? counts.replays : counts.rounds};
        const Status status = ask(talker, peer.socket(), command);
        print(fmt::format("{}, {}, {}",
                          name,
                          form == Form::kLines ? "lines" : "pushed",
                          op == Op::kGraph ? "graph" : "one launch"),
              size_bytes,
              status.ok() ? Result<std::vector<double>>(talker.times_us()) : status);
      }
    }
  }
}

void bench_nccl() {
  constexpr uint64_t kReplays = 100;
  for (const uint32_t size_bytes : kSizes) {
    print("NCCL send and receive, graph",
          size_bytes,
          nccl_round_trips_us(size_bytes, kGraphRounds, kReplays));
  }
}

// What fails is told, and the rest goes on.
void attempt(const std::function<void()>& part) {
  try {
    part();
  } catch (const Error& error) {
    fmt::print("error: {}\n", error.what());
  }
}

int run() {
  const int32_t num_gpus = cuda::num_devices();
  if (num_gpus == 0) {
    fmt::print("no GPU\n");
    return 0;
  }
  const bool has_two = num_gpus > 1;
  fmt::print("round trips, {}\n", has_two ? "two GPUs" : "both processes on one GPU");
  const Counts counts = has_two ? Counts{5000, 100} : Counts{20, 1};
  attempt([&] { bench_peer("GPU and GPU", "gpu", Place::kGpuMemory, counts); });
  attempt([&] { bench_peer("GPU and CPU", "cpu", Place::kHostMemory, {1000, 20}); });
  if (has_two) bench_nccl();
  return 0;
}

}  // namespace
}  // namespace lamina::bench

int main(int argc, char** argv) {
  if (argc > 1 && argv[1] == lamina::bench::kPeerArgument) {
    return lamina::cuda_p2p::testing::run_peer({argv + 2, argv + argc});
  }
  lamina::init_logging(lamina::LogLevel::kWarning, "bench");
  return lamina::bench::run();
}
