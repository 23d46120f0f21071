#include "app/bench_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "app/command_line.h"
#include "app/flags.h"
#include "app/round_trip_report.h"
#include "base/error.h"
#include "device/cuda/memory.h"
#include "transport/measure/device_trips.h"
#include "transport/measure/host_trips.h"
#include "transport/measure/nccl/nccl_trips.h"

namespace lamina::app {
namespace {

using cuda_p2p::Form;
using measure::DeviceTrips;
using measure::Drive;
using measure::TripKind;

constexpr Device kCpu = {};
constexpr Device kGpu = {DeviceKind::kCuda, 0};
constexpr uint32_t kMostBytes = 64 << 20;
constexpr size_t kMostSizes = 32;

std::vector<uint32_t> parse_sizes(const std::vector<std::string>& texts) {
  std::vector<uint32_t> sizes;
  for (const std::string& text : texts) {
    const uint64_t size_bytes = parse_size(text);
    if (size_bytes < 1 || size_bytes > kMostBytes || sizes.size() == kMostSizes) {
      throw CLI::ValidationError(
          "--sizes", fmt::format("up to {} sizes of 1 byte to 64 MiB, not {}", kMostSizes, text));
    }
    sizes.push_back(static_cast<uint32_t>(size_bytes));
  }
  return sizes;
}

std::string name_of(const TripKind& kind) {
  return kind.form == Form::kLines ? "lines" : "pushed";
}

class Bench {
 public:
  explicit Bench(const BenchTransportOptions& options)
      : options_(options),
        max_bytes_(*std::max_element(options.sizes.begin(), options.sizes.end())),
        num_gpus_(cuda::num_devices()) {}

  int run();

 private:
  [[nodiscard]] bool is_wanted(std::string_view backend) const {
    return options_.backends.empty() ||
           std::find(options_.backends.begin(), options_.backends.end(), backend) !=
               options_.backends.end();
  }
  [[nodiscard]] Duration time() const {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options_.seconds));
  }
  // Of the other process, when it has a GPU.
  [[nodiscard]] Device peers_gpu() const { return {DeviceKind::kCuda, num_gpus_ > 1 ? 1 : 0}; }
  [[nodiscard]] DeviceTrips::Config between(Device ours, Device peers) const {
    return {.ours = ours, .peers = peers, .max_bytes = max_bytes_};
  }

  void bench_hosts(TransportKind kind);
  void bench_devices();
  void bench_pair(const std::string& between_whom, const DeviceTrips::Config& config);
  void bench_kind(DeviceTrips& trips, const RoundTripSubject& subject, const TripKind& kind);
  void bench_parts();
  void bench_nccl();
  [[nodiscard]] std::string why_no_gpus() const;

  // What throws Error, which is told, and the next backend's turn comes.
  template <typename Measure>
  void attempt(const RoundTripSubject& subject, const Measure& measure);
  void add(const RoundTripSubject& subject,
           uint32_t size_bytes,
           const Result<std::vector<double>>& times_us);
  void add(RoundTripRow row);

  const BenchTransportOptions& options_;
  uint32_t max_bytes_;
  int32_t num_gpus_;
  std::vector<RoundTripRow> rows_;
};

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

void Bench::add(RoundTripRow row) {
  if (!options_.json) print(table_line(row));
  rows_.push_back(std::move(row));
}

// After an error nothing more is to be asked of the same ends.
void Bench::add(const RoundTripSubject& subject,
                uint32_t size_bytes,
                const Result<std::vector<double>>& times_us) {
  throw_if_error(times_us.status());
  add({.subject = subject,
       .size_bytes = size_bytes,
       .summary = measure::summarise(times_us.value(), size_bytes)});
}

template <typename Measure>
void Bench::attempt(const RoundTripSubject& subject, const Measure& measure) {
  try {
    measure();
  } catch (const Error& error) {
    add({.subject = subject, .error = error.what()});
  }
}

void Bench::bench_hosts(TransportKind kind) {
  const RoundTripSubject subject = {
      .backend = std::string(transport_name(kind)),
      .between = kind == TransportKind::kLoopback ? "two threads" : "two processes",
      .by = "put"};
  if (!is_wanted(subject.backend)) return;
  attempt(subject, [&] {
    measure::HostTrips trips({.kind = kind,
                              .max_bytes = max_bytes_,
                              .wait = {.spin = std::chrono::microseconds(options_.spin_us)}});
    for (const uint32_t size_bytes : options_.sizes) {
      add(subject, size_bytes, trips.times_us(size_bytes, time()));
    }
  });
}

void Bench::bench_kind(DeviceTrips& trips, const RoundTripSubject& subject, const TripKind& kind) {
  for (const uint32_t size_bytes : options_.sizes) {
    if (!kind.can_carry(size_bytes)) continue;
    add(subject, size_bytes, trips.times_us(kind, size_bytes, time()));
  }
}

// All forms with one peer process. A CPU makes round trips in one way alone.
void Bench::bench_pair(const std::string& between_whom, const DeviceTrips::Config& config) {
  RoundTripSubject subject = {.backend = "cuda_p2p", .between = between_whom, .by = ""};
  attempt(subject, [&] {
    DeviceTrips trips(config);
    const bool has_gpu = config.ours.kind == DeviceKind::kCuda;
    for (const Drive drive : {Drive::kPersistent, Drive::kGraph}) {
      if (drive == Drive::kGraph && !has_gpu) continue;
      for (const Form form : {Form::kLines, Form::kPushed}) {
        const TripKind kind = {.drive = drive, .form = form};
        subject.by = name_of(kind);
        if (has_gpu) subject.by += drive == Drive::kGraph ? ", graph" : ", one launch";
        bench_kind(trips, subject, kind);
      }
    }
  });
}

// Why nothing is measured between two GPUs, or empty.
std::string Bench::why_no_gpus() const {
  if (num_gpus_ == 0) return "no GPU";
  if (num_gpus_ == 1 && !options_.shared_gpu) {
    return "one GPU, which both processes would share: that says nothing about speed "
           "(--shared-gpu measures it)";
  }
  if (!measure::can_reach_each_other(kGpu, peers_gpu())) return "the GPUs cannot reach each other";
  return {};
}

void Bench::bench_devices() {
  if (!is_wanted("cuda_p2p")) return;
  bench_pair("CPU and CPU", between(kCpu, kCpu));
  if (num_gpus_ == 0) {
    add({.subject = {"cuda_p2p", "GPU and CPU", ""}, .missing = "no GPU"});
  } else {
    bench_pair("GPU and CPU", between(kGpu, kCpu));
  }
  if (const std::string why = why_no_gpus(); !why.empty()) {
    add({.subject = {"cuda_p2p", "GPU and GPU", ""}, .missing = why});
  } else {
    bench_pair("GPU and GPU", between(kGpu, peers_gpu()));
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

// The ways to cut a message, each number of parts once.
std::vector<TripKind> part_kinds(const PartRange& range, uint32_t size_bytes) {
  std::vector<TripKind> kinds;
  uint32_t num_parts = 0;
  for (uint32_t bytes = range.least_bytes; bytes <= range.most_bytes; bytes *= 2) {
    const TripKind kind = {.form = range.form, .part_bytes = bytes};
    if (!kind.can_carry(size_bytes) || kind.plan(size_bytes).num_parts == num_parts) continue;
    num_parts = kind.plan(size_bytes).num_parts;
    kinds.push_back(kind);
  }
  return kinds;
}

void Bench::bench_parts() {
  RoundTripSubject subject = {.backend = "cuda_p2p", .between = "GPU and GPU", .by = ""};
  if (const std::string why = why_no_gpus(); !why.empty()) {
    return add({.subject = subject, .missing = why});
  }
  attempt(subject, [&] {
    DeviceTrips trips(between(kGpu, peers_gpu()));
    for (const PartRange& range : kPartRanges) {
      for (const uint32_t size_bytes : options_.sizes) {
        for (const TripKind& kind : part_kinds(range, size_bytes)) {
          const cuda_p2p::Plan plan = kind.plan(size_bytes);
          subject.by = fmt::format("{}, {} of {} KiB",
                                   name_of(kind),
                                   plan.num_parts,
                                   plan.part_chunks * sizeof(cuda_p2p::Chunk) >> 10);
          add(subject, size_bytes, trips.times_us(kind, size_bytes, time()));
        }
      }
    }
  });
}

void Bench::bench_nccl() {
  const RoundTripSubject subject = {"nccl", "GPU and GPU", "send, receive, graph"};
  if (!is_wanted(subject.backend)) return;
  std::string why = num_gpus_ == 0 ? "no GPU" : num_gpus_ == 1 ? "one GPU" : "";
  if (why.empty()) why = measure::NcclTrips::why_missing();
  if (!why.empty()) return add({.subject = subject, .missing = why});
  attempt(subject, [&] {
    measure::NcclTrips trips;
    for (const uint32_t size_bytes : options_.sizes) {
      add(subject, size_bytes, trips.times_us(size_bytes, time()));
    }
  });
}

int Bench::run() {
  if (!options_.json) {
    print(fmt::format("Round trips, about {} s a line; GB/s of both ways together.\n{}",
                      options_.seconds,
                      table_head()));
  }
  if (options_.parts) {
    bench_parts();
  } else {
    for (const auto kind : {TransportKind::kLoopback, TransportKind::kShm, TransportKind::kTcp}) {
      bench_hosts(kind);
    }
    bench_devices();
    bench_nccl();
  }
  if (options_.json) print(round_trips_json(rows_));
  const bool has_failed = std::any_of(
      rows_.begin(), rows_.end(), [](const RoundTripRow& row) { return !row.error.empty(); });
  return has_failed ? 1 : 0;
}

}  // namespace

CLI::App* add_bench_transport(CLI::App& root, BenchTransportOptions& options) {
  CLI::App* const bench = root.add_subcommand("bench", "Measure a part of the server");
  bench->require_subcommand(1);
  CLI::App* const app = bench->add_subcommand(
      "transport", "Print round trips over every transport that this machine has");
  Flags flags(*app);
  flags
      .add_list("--backends",
                options.backends,
                "Those to measure: loopback, shm, tcp, cuda_p2p, nccl (default: all there are)")
      ->delimiter(',')
      ->check(CLI::IsMember({"loopback", "shm", "tcp", "cuda_p2p", "nccl"}));
  flags.add_parsed_list(
      "--sizes",
      [&options](const std::vector<std::string>& texts) { options.sizes = parse_sizes(texts); },
      "Bytes each way (default: 8,16KiB,128KiB,1MiB,4MiB)");
  flags.add("--seconds", options.seconds, "Time for each line")->check(CLI::Range(0.001, 60.0));
  flags.add("--spin-us", options.spin_us, "Hosts: microseconds of polling before a wait blocks")
      ->check(CLI::Range(0, 1'000'000));
  flags.add_switch("--shared-gpu",
                   options.shared_gpu,
                   "Also GPU and GPU where both processes share the only one");
  flags.add_switch(
      "--parts", options.parts, "GPU and GPU alone, with messages cut into parts of other sizes");
  flags.add_switch("--json", options.json, "The same as JSON");
  return app;
}

int run_bench_transport(const BenchTransportOptions& options) {
  return Bench(options).run();
}

}  // namespace lamina::app
