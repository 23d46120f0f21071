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
#include "base/checked_math.h"
#include "base/error.h"
#include "device/cuda/memory.h"
#include "planner/model_source.h"
#include "random_model.h"
#include "serve_options.h"
#include "step_loop.h"
#include "step_prediction.h"
#include "transport/measure/device_trips.h"
#include "transport/measure/trip_times.h"
#include "worker/attention_core.h"
#include "worker/no_attention.h"
#include "worker/rank_group.h"

namespace lamina::bench {
namespace {

// Of two micro-batches together.
constexpr std::array<int32_t, 3> kBatches = {16, 64, 256};
constexpr std::array<int32_t, 3> kContexts = {1024, 4096, 16384};
constexpr int32_t kMostSequences = 288;  // of the profile, beyond the largest batch
constexpr int kSteps = 20;

struct Point {
  int32_t batch = 0;
  int32_t context = 0;
  auto operator<=>(const Point&) const = default;
};

double measure_slices(const ModelProgram& program, StreamView stream, int32_t batch) {
  RankGroup ranks(program.rank_models(std::array{stream}),
                  program.step_limits(),
                  /*num_micro_batches=*/1,
                  std::chrono::seconds(10));
  NoAttention attention(/*launch_shape=*/0);
  AttentionBackend* const backend = &attention;
  const std::vector<int32_t> ids(static_cast<size_t>(batch), 1);
  std::vector<int32_t> rows;
  for (int32_t i = 0; i < batch; ++i) rows.push_back(i);
  return median_seconds(3, kSteps, stream, [&] {
    throw_if_error(ranks.begin(0, {.token_ids = ids, .positions = rows, .logits_rows = rows}));
    const SliceRun run = {0, 0, ranks.num_slices()};
    throw_if_error(ranks.run_slices(std::span(&run, 1), std::span(&backend, 1)));
  });
}

// Append and attention of all layers, captured, on a card of its own.
class AttentionAlone {
 public:
  // Of one worker of so many that share the heads.
  AttentionAlone(const ModelProgram& program, StreamView stream, Point point, int32_t num_workers)
      : stream_(stream),
        point_(point),
        core_(core_config(program, point, num_workers), stream),
        heads_(share_of(program.attention(), num_workers)),
        q_(rows_of(heads_.num_heads * heads_.head_dim)),
        kv_(rows_of(heads_.num_kv_heads * heads_.head_dim)),
        out_(rows_of(heads_.num_heads * heads_.value_dim)) {
    throw_if_error(core_.begin_step(plan(program.block_size)));
  }

  double measure() {
    throw_if_error(enqueue());
    throw_if_error(synchronize(stream_));
    const GpuGraph graph = GpuGraph::capture(stream_, [&] { return enqueue(); }).value_or_throw();
    return median_seconds(3, kSteps, stream_, [&] { throw_if_error(graph.launch(stream_)); });
  }

 private:
  static AttentionAttrs share_of(AttentionAttrs heads, int32_t num_workers) {
    heads.num_heads /= num_workers;
    heads.num_kv_heads /= num_workers;
    return heads;
  }

  static AttentionCoreConfig core_config(const ModelProgram& program,
                                         Point point,
                                         int32_t num_workers) {
    const int32_t blocks = ceil_div(point.context, program.block_size) * point.batch;
    AttentionCoreConfig config =
        program.attention_core(0, {0, program.num_kv_heads() / num_workers}, blocks);
    config.overlap = false;
    config.num_micro_batches = 1;
    return config;
  }

  [[nodiscard]] Buffer rows_of(int32_t width) const {
    return {MemoryKind::kCuda, static_cast<size_t>(point_.batch) * static_cast<size_t>(width) * 2};
  }

  [[nodiscard]] wire::AttentionPlan plan(int32_t block_size) const {
    const auto blocks = static_cast<uint32_t>(ceil_div(point_.context, block_size));
    wire::AttentionPlan plan{.step = 1};
    for (int32_t i = 0; i < point_.batch; ++i) {
      plan.sequences.push_back({.slot = static_cast<uint32_t>(i),
                                .first_position = static_cast<uint32_t>(point_.context) - 1,
                                .num_tokens = 1,
                                .num_new_blocks = blocks,
                                .starts = 1});
    }
    for (uint32_t block = 0; block < blocks * static_cast<uint32_t>(point_.batch); ++block) {
      plan.new_blocks.push_back(static_cast<int32_t>(block));
    }
    return plan;
  }

  Status enqueue() {
    const auto view = [&](const Buffer& memory, int32_t heads, int32_t dim) {
      return TensorView(memory.data(), DType::kBF16, {point_.batch, heads, dim});
    };
    const TensorView kv = view(kv_, heads_.num_kv_heads, heads_.head_dim);
    for (int32_t layer = 0; layer < core_.config().kv.num_layers; ++layer) {
      LAMINA_RETURN_IF_ERROR(core_.append(0, layer, kv, kv));
      LAMINA_RETURN_IF_ERROR(core_.attend(0,
                                          layer,
                                          view(q_, heads_.num_heads, heads_.head_dim),
                                          view(out_, heads_.num_heads, heads_.value_dim)));
    }
    return {};
  }

  StreamView stream_;
  Point point_;
  AttentionCore core_;
  AttentionAttrs heads_;
  Buffer q_;
  Buffer kv_;
  Buffer out_;
};

// Seconds of a layer's messages of a batch, to the attention worker and back, in captured graphs as
// steps send them: half of a round trip of either size.
double measure_wire(measure::DeviceTrips& trips, const AttentionAttrs& heads, int32_t batch) {
  const int32_t to_attention = (heads.num_heads + heads.num_kv_heads) * heads.head_dim +
                               heads.num_kv_heads * heads.value_dim;
  double seconds = 0;
  for (const int32_t width : {to_attention, heads.num_heads * heads.value_dim}) {
    const auto size_bytes = static_cast<uint32_t>(batch * width) * 2;
    const bool as_lines = size_bytes <= cuda_p2p::Limits{}.lines_bytes;
    const measure::TripKind kind = {
        .drive = measure::Drive::kGraph,
        .form = as_lines ? cuda_p2p::Form::kLines : cuda_p2p::Form::kPushed};
    const auto times_us =
        trips.times_us(kind, size_bytes, std::chrono::milliseconds(200)).value_or_throw();
    seconds += 0.5e-6 * measure::summarise(times_us, size_bytes).p50_us;
  }
  return seconds;
}

// CPU time of this process, but for spinning until a GPU has done its work.
double working_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  const double waiting = std::chrono::duration<double>(cuda::time_waiting()).count();
  return seconds(usage.ru_utime) + seconds(usage.ru_stime) - waiting;
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
            n * AttentionAlone(model_.program, other.view(), part, num_workers()).measure();
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
      measure_point(name, point, spec, loop);
    }
  }

  void measure_point(const std::string& name,
                     Point point,
                     const PlacementSpec& spec,
                     StepLoop& loop) {
    const int32_t n = spec.num_micro_batches;
    loop.set_sequences(point.batch, point.context);
    loop.run_steps(4);  // sequences begin, kernels are loaded, graphs captured
    const double cpu_before = working_seconds();
    const double seconds = loop.run_steps(kSteps);
    const double cpu = (working_seconds() - cpu_before) / kSteps / n;
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
    fmt::print("  host {:.0f} us a step\n", 1e6 * cpu);
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
