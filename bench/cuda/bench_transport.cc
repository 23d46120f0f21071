// Round trips between two processes, a GPU each, that send and receive by themselves: driven from
// one launch, and from captured graphs; the same with a thread of a CPU; and by NCCL. Prints the
// median and the 99th percentile of each size, and bytes per second both ways together; of graphs
// these are of the mean of 20 round trips. Asserts nothing. With one GPU both processes share it,
// which says nothing about speed. The argument `parts` measures parts of other sizes instead.
#include <fmt/format.h>

#include <array>
#include <functional>
#include <string>
#include <string_view>
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

// The asking side, and a peer process of that kind.
class Ends {
 public:
  Ends(const std::string& kind, Place place)
      : peer_({kind,
               cuda::num_devices() > 1 ? "1" : "0",
               place == Place::kGpuMemory ? "gpu-memory" : "host-memory"}),
        talker_({DeviceKind::kCuda, 0}, place, true, peer_.socket(), kMaxWait) {}

  Result<std::vector<double>> times_us(Command command) {
    command.epoch = ++epoch_;
    LAMINA_RETURN_IF_ERROR(ask(talker_, peer_.socket(), command));
    return talker_.times_us();
  }

 private:
  PeerProcess peer_;
  GpuTalker talker_;
  uint32_t epoch_ = 0;
};

bool can_travel(Form form, uint32_t size_bytes) {
  return form == Form::kPushed || size_bytes <= cuda_p2p::testing::kTalkLimits.lines_bytes;
}

const char* name_of(Form form) {
  return form == Form::kLines ? "lines" : "pushed";
}

// All sizes and forms with one peer process.
void bench_peer(const std::string& name, const std::string& kind, Place place, Counts counts) {
  Ends ends(kind, place);
  for (const Op op : {Op::kPersistent, Op::kGraph}) {
    const bool is_graph = op == Op::kGraph;
    for (const Form form : {Form::kLines, Form::kPushed}) {
      for (const uint32_t size_bytes : kSizes) {
        if (!can_travel(form, size_bytes)) continue;
        print(fmt::format("{}, {}, {}", name, name_of(form), is_graph ? "graph" : "one launch"),
              size_bytes,
              ends.times_us({.op = op,
                             .form = form,
                             .size_bytes = size_bytes,
                             .count = is_graph ? counts.replays : counts.rounds}));
      }
    }
  }
}

// Sizes of parts between which the best ones are to be found.
struct PartRange {
  Form form;
  uint32_t least_bytes;
  uint32_t most_bytes;
};
constexpr std::array<PartRange, 2> kPartRanges = {PartRange{Form::kLines, 2 << 10, 16 << 10},
                                                  PartRange{Form::kPushed, 8 << 10, 128 << 10}};

// Which share of a message a block should have: each number of blocks once.
void bench_parts() {
  Ends ends("gpu", Place::kGpuMemory);
  for (const PartRange& range : kPartRanges) {
    for (const uint32_t size_bytes : kSizes) {
      if (!can_travel(range.form, size_bytes)) continue;
      uint32_t num_parts = 0;
      for (uint32_t bytes = range.least_bytes; bytes <= range.most_bytes; bytes *= 2) {
        const Command command = {.op = Op::kPersistent,
                                 .form = range.form,
                                 .size_bytes = size_bytes,
                                 .count = 2000,
                                 .part_bytes = bytes};
        if (command.plan().num_parts == num_parts) continue;
        num_parts = command.plan().num_parts;
        print(fmt::format("{}, {} of {} KiB, one launch",
                          name_of(range.form),
                          num_parts,
                          command.plan().part_chunks * sizeof(cuda_p2p::Chunk) >> 10),
              size_bytes,
              ends.times_us(command));
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

int run(bool only_parts) {
  const int32_t num_gpus = cuda::num_devices();
  if (num_gpus == 0) {
    fmt::print("no GPU\n");
    return 0;
  }
  const bool has_two = num_gpus > 1;
  fmt::print("round trips, {}\n", has_two ? "two GPUs" : "both processes on one GPU");
  if (only_parts) {
    attempt(bench_parts);
    return 0;
  }
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
  return lamina::bench::run(argc > 1 && std::string_view(argv[1]) == "parts");
}
