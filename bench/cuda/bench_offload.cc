// A model on one GPU with its attention on another, whose devices send each other q, k, v and
// outputs by themselves: decoding steps of random weights and dummy tokens, through what `lamina
// serve` places and worker processes of its own. Beside each step what it is made of, measured in
// the same run: of all its micro-batches the slices without attention, shared out over the replicas
// (T_m), the attention without slices (T_a), and the messages of all layers alone (T_w); and the
// same batch colocated, where that fits one card. One micro-batch takes their sum; several the
// larger of slices and attention, and of each one's sum, at least. And what the planner predicts,
// from a profile of these GPUs measured first, at other numbers of sequences and lengths of
// context. Prints a line a point; asserts nothing. Needs two GPUs.
//   lamina_bench_cuda_offload [model [layers [flags of lamina serve]]]
// llama-33b by default, or llama-3-8b, llama-3-70b, qwen2.5-32b; 0 layers: all. Flags stand for
// --device cuda:0 --transport cuda_p2p, and a worker on the next GPU. With --replicas R those are
// on as many GPUs, and R + 1 micro-batches, or --micro-batches of them, go round.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/placement.h"
#include "base/error.h"
#include "device/cuda/memory.h"
#include "device/waiting_time.h"
#include "engine/step_backend.h"
#include "planner/model_source.h"
#include "random_model.h"
#include "serve_options.h"
#include "step_loop.h"
#include "step_parts.h"
#include "step_prediction.h"

namespace lamina::bench {
namespace {

// Of two micro-batches together.
constexpr std::array<int32_t, 3> kBatches = {16, 64, 256};
constexpr std::array<int32_t, 3> kContexts = {1024, 4096, 16384};
constexpr int32_t kMostSequences = 288;  // of the profile, beyond the largest batch
constexpr int kSteps = 20;

// CPU time of this process, engine and this program included, but for spinning until a GPU has done
// its work.
double process_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  const double waiting = std::chrono::duration<double>(time_waiting()).count();
  return seconds(usage.ru_utime) + seconds(usage.ru_stime) - waiting;
}

struct HostTimes {
  double model_worker = 0.0;
  double process = 0.0;
};

HostTimes host_times(const StepBackend& backend) {
  return {.model_worker = backend.times().host_seconds, .process = process_seconds()};
}

// Seconds of a step's micro-batches, one after the other: of a replica, and of an attention worker.
struct Parts {
  double model = 0.0;
  double attention = 0.0;
  double wire = 0.0;

  [[nodiscard]] double bound(const Rotation& rotation) const {
    const double of_all = model * rotation.num_replicas + attention + wire;
    return std::max({model, attention, of_all / rotation.num_micro_batches});
  }
};

// What is measured of a model on one GPU; of replicas, a turn of them.
std::vector<Rotation> rotations_of(const app::ModelOptions& options) {
  const int32_t num_replicas = options.replicas;
  if (num_replicas == 1) return {{1, 1}, {2, 1}};
  const int32_t given = options.micro_batches;
  return {{given > 0 ? given : num_replicas + 1, num_replicas}};
}

class Bench {
 public:
  Bench(const app::ServeOptions& options, int64_t layers)
      : placement_(options.placement),
        cpus_(app::settle(options.placement.cpus)),
        rotations_(rotations_of(options.model)) {
    const Device first = parse_device(options.model.device).value_or_throw();
    for (int32_t i = 0; i < options.model.replicas; ++i) {
      model_.gpus.push_back(std::make_unique<GpuStream>(Device{first.kind, first.idx + i}));
    }
    load(options.model, layers);
    choose_points();
  }

  // Around the points and none of them.
  void profile() {
    const GpuStream other(attention_device());
    planner::ProfileGrid grid = planner::ProfileGrid::of(work_, kMostSequences, kContexts.back());
    grid.slice_rows = grid.sequences = {6, 12, 24, 48, 96, 192, kMostSequences};
    grid.rows = {1, kMostSequences};  // slices are measured whole
    grid.contexts = {768, 3072, 12288, 20480};
    grid.head_parts = {1};
    grid.message_bytes = {64, 16 << 10, 128 << 10, 1 << 20, 4 << 20};
    const TimePoint begin = steady_clock().now();
    prediction_.emplace(work_, model_.program, stream(), other.view(), grid);
    fmt::print("profiled in {:.1f} s\n",
               std::chrono::duration<double>(steady_clock().now() - begin).count());
    use_device_of(stream());
  }

  // Attention first: its cards hold nothing else then.
  void measure_parts() {
    GpuStream other(attention_device());
    use_device_of(other.view());
    for (const Point& point : points_) {
      for (const Rotation& rotation : rotations_) {
        const int32_t n = rotation.num_micro_batches;
        const Point part = {point.batch / n, point.context};
        parts_[{point, n}].attention =
            n * measure_attention(model_.program, other.view(), part, num_workers());
      }
    }
    use_device_of(stream());
    measure::DeviceTrips trips({.ours = stream().device(),
                                .peers = other.view().device(),
                                .max_bytes = kBatches.back() * 64 << 10});
    std::map<int32_t, Parts> of_batch;
    for (auto& [which, parts] : parts_) {
      const auto& [point, n] = which;
      const auto [found, is_new] = of_batch.try_emplace(point.batch / n);
      if (is_new) found->second = measure_batch(trips, found->first);
      parts.model = n * found->second.model / static_cast<double>(model_.gpus.size());
      parts.wire = n * found->second.wire;
    }
  }

  void run() {
    if (model_.gpus.size() == 1) run_colocated();
    for (const Rotation& rotation : rotations_) {
      measure(
          fmt::format("offloaded, n {} R {}", rotation.num_micro_batches, rotation.num_replicas),
          placement_,
          {.num_replicas = rotation.num_replicas,
           .num_attention_workers = num_workers(),
           .num_micro_batches = rotation.num_micro_batches,
           .overlap = placement_.overlap});
    }
  }

  void print_errors() const {
    double sum = 0;
    double worst = 0;
    for (const double error : errors_) {
      sum += std::abs(error);
      worst = std::max(worst, std::abs(error));
    }
    fmt::print("{} predictions: {:.1f} % off in the mean, {:.1f} % at worst\n",
               errors_.size(),
               100 * sum / static_cast<double>(errors_.size()),
               100 * worst);
  }

 private:
  [[nodiscard]] StreamView stream() const { return model_.gpus.front()->view(); }
  [[nodiscard]] int32_t num_workers() const { return placement_.attention_workers; }
  [[nodiscard]] Device attention_device() const {
    return parse_device(placement_.attention_device.front()).value_or_throw();
  }

  // What does not depend on contexts.
  Parts measure_batch(measure::DeviceTrips& trips, int32_t batch) {
    const ModelProgram& program = model_.program;
    return {.model = measure_slices(program, stream(), batch),
            .wire = program.num_layers() * measure_wire(trips, program.attention(), batch)};
  }

  void load(const app::ModelOptions& options, int64_t layers) {
    ModelProgram& program = model_.program;
    program.block_size = options.block_size;
    program.max_model_len = kContexts.back();
    work_ = planner::model_work(llama_config(options.model, layers), options.model);
    ModelShard& shard = program.ranks.emplace_back();
    shard.sliced = llama_model(options.model, layers);
    for (const auto& gpu : model_.gpus) {
      auto weights = std::make_unique<RandomWeights>(shard.sliced.graph, gpu->view());
      if (shard.weights == nullptr) {
        shard.weights = std::move(weights);
      } else {
        shard.copies.push_back(std::move(weights));
      }
    }
    fmt::print("{}, {} layers, {:.1f} GB, {:.3f} MB of KV a token\n",
               options.model,
               program.num_layers(),
               static_cast<double>(shard.weights->resident_bytes()) / 1e9,
               program.decode_work().kv_bytes_per_position / 1e6);
  }

  // With more micro-batches of the same size.
  void choose_points() {
    const int32_t n = std::max(2, rotations_.back().num_micro_batches);
    ModelProgram& program = model_.program;
    program.max_num_seqs = std::max(kMostSequences, kBatches.back() / 2 * n);
    program.max_num_batched_tokens = program.max_num_seqs;
    program.max_logits_rows = program.max_num_seqs;
    const double kv_bytes = program.decode_work().kv_bytes_per_position;
    const auto card = static_cast<double>(cuda::memory_of(stream().device()).total_bytes);
    for (const int32_t of_two : kBatches) {
      const int32_t batch = of_two / 2 * n;
      for (const int32_t context : kContexts) {
        if (kv_bytes * batch * context <= 0.85 * card * num_workers()) {
          points_.push_back({batch, context});
        }
      }
    }
  }

  void run_colocated() {
    app::PlacementOptions options = placement_;
    options.mode = "colocated";
    try {
      measure("colocated", options, {.overlap = false});
    } catch (const Error& error) {
      if (error.code() != StatusCode::kResourceExhausted) throw;
      fmt::print("colocated: {}\n", error.what());  // a card without room for any sequence
    }
  }

  void measure(const std::string& name,
               const app::PlacementOptions& options,
               const PlacementSpec& spec) {
    model_.program.rotation = {spec.num_micro_batches, spec.num_replicas};
    app::Placement placement;
    const auto backend = app::place_backend(options, cpus_, model_, "warning", placement);
    StepLoop loop(*backend, model_.program, kContexts.front());
    for (const Point& point : points_) {
      if (point.batch > loop.most_sequences(point.context)) continue;
      measure_point(name, point, spec, *backend, loop);
    }
  }

  void measure_point(const std::string& name,
                     Point point,
                     const PlacementSpec& spec,
                     const StepBackend& backend,
                     StepLoop& loop) {
    const int32_t n = spec.num_micro_batches;
    loop.set_sequences(point.batch, point.context);
    loop.run_steps(4);  // sequences begin, kernels are loaded, graphs captured
    const HostTimes before = host_times(backend);
    const double seconds = loop.run_steps(kSteps);
    const HostTimes after = host_times(backend);
    const Parts& parts = parts_[{point, n}];
    const double predicted = prediction_->estimate(spec, point.batch, point.context).step_s;
    errors_.push_back(predicted / seconds - 1);
    fmt::print(
        "{:18} B {:3} S {:5}  {:8.2f} ms  predicted {:8.2f} {:+5.1f} %  T_m {:8.2f}  T_a {:8.2f}  "
        "T_w {:5.2f}",
        name,
        point.batch,
        point.context,
        1e3 * seconds,
        1e3 * predicted,
        100 * errors_.back(),
        1e3 * parts.model,
        1e3 * parts.attention,
        1e3 * parts.wire);
    if (name == "colocated") {
      colocated_[point] = seconds;
    } else {
      fmt::print("  {:.3f} of its bound  idle: model {:3.0f} %, attention {:3.0f} %",
                 seconds / parts.bound(model_.program.rotation),
                 100 * (1 - parts.model / seconds),
                 100 * (1 - parts.attention / seconds));
      if (colocated_.contains(point))
        fmt::print("  {:.3f} of colocated", seconds / colocated_[point]);
    }
    const double per_step_us = 1e6 / kSteps / n;
    fmt::print("  host: model worker {:.0f} us a step, process {:.0f}\n",
               per_step_us * (after.model_worker - before.model_worker),
               per_step_us * (after.process - before.process));
    std::fflush(stdout);
  }

  app::PlacementOptions placement_;
  app::ProcessCpus cpus_;
  std::vector<Rotation> rotations_;  // that are measured
  app::LoadedModel model_;           // neither files nor tokenizer; on a GPU for each replica
  ModelWork work_;
  std::optional<StepPrediction> prediction_;
  std::vector<double> errors_;  // of predictions
  std::vector<Point> points_;
  std::map<std::pair<Point, int32_t>, Parts> parts_;  // by micro-batches, too
  std::map<Point, double> colocated_;
};

int run(app::ServeOptions options, int64_t layers) {
  std::vector<std::string>& devices = options.placement.attention_device;
  const Device first = parse_device(options.model.device).value_or_throw();
  if (devices.empty()) devices = {fmt::format("cuda:{}", first.idx + options.model.replicas)};
  const int32_t num_gpus = options.model.replicas + static_cast<int32_t>(devices.size());
  if (cuda::num_devices() < num_gpus) {
    fmt::print("skipped: fewer than {} GPUs\n", num_gpus);
    return 0;
  }
  Bench bench(options, layers);
  bench.profile();
  bench.measure_parts();
  bench.run();
  bench.print_errors();
  return 0;
}

}  // namespace
}  // namespace lamina::bench

int main(int argc, char** argv) {
  return lamina::bench::run_with_serve_options(argc,
                                               argv,
                                               "llama-33b",
                                               {"--device",
                                                "cuda:0",
                                                "--transport",
                                                "cuda_p2p",
                                                "--attention-workers",
                                                "1",
                                                "--gpu-memory-utilization",
                                                "0.95"},
                                               lamina::bench::run);
}
