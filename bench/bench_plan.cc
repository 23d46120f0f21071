// What `lamina profile` and the planner's model predict, beside what decoding steps take: points
// (sequences B, context S, attention workers b, micro-batches n) drawn from a seed, none of which a
// profile has measured, over a model worker on one core and attention workers, processes of their
// own, on another. Profiles and points are measured in turns, because bandwidth drifts: a point is
// predicted from the profiles before and after it. Prints a line a point and the errors; asserts
// nothing.
//   lamina_bench_plan MODEL [seed [flags of lamina serve]]
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "app/local_workers.h"
#include "app/placement.h"
#include "base/log.h"
#include "base/rng.h"
#include "cuda/serve_options.h"
#include "cuda/step_loop.h"
#include "other_work.h"
#include "plan/decode_estimate.h"
#include "planner/model_source.h"
#include "planner/profile/meter.h"
#include "planner/profile/profiled_costs.h"
#include "transport/measure/peer.h"

namespace lamina::bench {
namespace {

constexpr int kPoints = 10;
constexpr int32_t kMaxBatch = 48;
constexpr int32_t kMaxContext = 3072;
constexpr int kModelCore = 0;
constexpr int kAttentionCore = 1;

struct Point {
  int32_t batch = 0;
  int32_t context = 0;
  int32_t workers = 0;
  int32_t micro_batches = 0;
};

std::vector<Point> draw_points(uint64_t seed) {
  Rng rng(seed);
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(rng.next_below(static_cast<uint64_t>(high - low + 1)));
  };
  std::vector<Point> points;
  for (int i = 0; i < kPoints; ++i) {
    points.push_back({.batch = 2 * between(2, kMaxBatch / 2),
                      .context = between(128, kMaxContext),
                      .workers = between(1, 2),
                      .micro_batches = between(1, 2)});
  }
  return points;
}

// Until others leave the machine alone for a moment; not for ever: what they take is printed.
void wait_until_quiet() {
  constexpr double kQuiet = 0.02;
  constexpr int kMostSeconds = 20;
  for (int i = 0; i < kMostSeconds; ++i) {
    const OtherWork other_work;
    std::this_thread::sleep_for(std::chrono::seconds(1));
    if (other_work.share() < kQuiet) return;
  }
}

app::ProcessCpus on_core(app::ProcessCpus cpus, int core) {
  cpus.share = {.num_threads = 1, .cpus = {core}};
  return cpus;
}

class Bench {
 public:
  explicit Bench(const app::ServeOptions& options)
      : options_(options),
        cpus_(on_core(app::settle({.threads = 1}), kModelCore)),
        work_(planner::read_model_work(options.model.model)),
        model_(app::load_model(options.model, "", cpus_)),
        model_pool_(1, {kModelCore}),
        attention_pool_(1, {kAttentionCore}),
        metered_{model_.program.rank_models(std::array{StreamView(model_pool_)}).front(),
                 model_.program.step_limits()},
        meter_(planner::make_host_meter({.transport = TransportKind::kShm,
                                         .working_set_bytes = uint64_t{512} << 20,
                                         .time = std::chrono::milliseconds(15)},
                                        StreamView(model_pool_),
                                        StreamView(attention_pool_),
                                        &metered_)) {}

  void run(uint64_t seed) {
    fmt::print(
        "seed {}; times in ms, a step's with its rounds' spread; others: their share of the "
        "machine\n{:>4} {:>8} {:>3} {:>3} {:>9} {:>8} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        seed,
        "B",
        "S",
        "b",
        "n",
        "measured",
        "spread",
        "predicted",
        "error",
        "model",
        "attn",
        "wire",
        "others");
    wait_until_quiet();
    planner::Profile before = profile();
    std::vector<double> errors;
    for (const Point& point : draw_points(seed)) {
      wait_until_quiet();
      const Measured measured = measure(point);
      planner::Profile after = profile();
      const StepEstimate predicted = predict(point, joined(before, after));
      before = std::move(after);
      errors.push_back(predicted.step_s / measured.step_s - 1.0);
      print(point, measured, predicted, before);
    }
    print_errors(errors);
  }

 private:
  struct Measured {
    double step_s = 0;  // the rounds' median
    double spread = 0;  // of the rounds, from the least to the most, of the median
    double others = 0;  // share of the machine that others took meanwhile
  };

  static void print(const Point& point,
                    const Measured& measured,
                    const StepEstimate& predicted,
                    const planner::Profile& profile) {
    fmt::print(
        "{:>4} {:>8} {:>3} {:>3} {:>9.2f} {:>6.1f} % {:>10.2f} {:>+6.1f} % {:>8.2f} {:>8.2f} "
        "{:>8.2f} {:>6.1f} %   {:.2f} {:.2f}\n",
        point.batch,
        point.context,
        point.workers,
        point.micro_batches,
        1e3 * measured.step_s,
        100 * measured.spread,
        1e3 * predicted.step_s,
        100 * (predicted.step_s / measured.step_s - 1.0),
        1e3 * predicted.model_s,
        1e3 * predicted.attention_s,
        1e3 * predicted.wire_s,
        100 * measured.others,
        profile.slices_beside,
        profile.attention_beside);
    std::fflush(stdout);
  }

  static void print_errors(const std::vector<double>& errors) {
    double sum = 0;
    double worst = 0;
    for (const double error : errors) {
      sum += std::abs(error);
      worst = std::max(worst, std::abs(error));
    }
    fmt::print("error of a step's time: {:.1f} % in the mean, {:.1f} % at worst\n",
               100 * sum / static_cast<double>(errors.size()),
               100 * worst);
  }

  [[nodiscard]] planner::Profile profile() {
    planner::Profile profile{
        .machine = "this", .device = "cpu", .transport = "shm", .model = work_.name};
    planner::ProfileGrid grid = planner::ProfileGrid::of(work_, kMaxBatch, kMaxContext);
    grid.add_slices(kMaxBatch);
    grid.rows = {1, kMaxBatch};  // slices are measured whole
    grid.sequences = {3, 16, kMaxBatch};
    grid.contexts = {128, 1024, kMaxContext};
    planner::measure(*meter_, grid, profile);
    return profile;
  }

  static planner::Profile joined(const planner::Profile& a, const planner::Profile& b) {
    planner::Profile both = a;
    both.slices_beside = (a.slices_beside + b.slices_beside) / 2;
    both.attention_beside = (a.attention_beside + b.attention_beside) / 2;
    both.slices.insert(both.slices.end(), b.slices.begin(), b.slices.end());
    both.products.insert(both.products.end(), b.products.begin(), b.products.end());
    both.attention.insert(both.attention.end(), b.attention.begin(), b.attention.end());
    both.transports.insert(both.transports.end(), b.transports.begin(), b.transports.end());
    return both;
  }

  [[nodiscard]] StepEstimate predict(const Point& point, const planner::Profile& profile) const {
    const planner::ProfileFit fit(profile);
    const PlacementSpec placement{.num_attention_workers = point.workers,
                                  .num_micro_batches = point.micro_batches};
    KvPartition heads{.num_kv_heads = work_.num_kv_heads, .num_blocks = 1, .tiles = {}};
    for (const HeadRange& range : split_heads(work_.num_kv_heads, point.workers)) {
      heads.tiles.push_back({static_cast<int32_t>(heads.tiles.size()), range, {0, 1}});
    }
    planner::SharedMachine shared{.workers_per_device = point.workers};
    if (point.micro_batches > 1) {  // of one, slices and attention take turns
      shared.slices_beside = profile.slices_beside;
      shared.attention_beside = profile.attention_beside;
    }
    const planner::ProfiledCosts costs(work_, placement, heads, fit, shared);
    return estimate_step(costs, placement, work_.num_layers, point.batch, point.context);
  }

  // A step of all micro-batches.
  Measured measure(const Point& point) {
    constexpr double kEnoughSeconds = 1.0;
    // Processes inherit their place from the thread that starts them.
    StreamView(attention_pool_).adopt_this_thread();
    const std::string secret = app::random_secret();
    const app::CpuShare core{.num_threads = 1, .cpus = {kAttentionCore}};
    const app::LocalWorkers workers({.cpus = std::vector(static_cast<size_t>(point.workers), core),
                                     .kv_memory_bytes = uint64_t{1} << 30,
                                     .secret = secret,
                                     .log_level = "warning"});
    StreamView(model_pool_).adopt_this_thread();
    app::PlacementOptions options = options_.placement;
    options.security.cluster_secret = secret;
    for (const auto& address : workers.addresses()) {
      options.attention_worker.push_back(address.to_string());
    }
    model_.program.rotation = {.num_micro_batches = point.micro_batches, .num_replicas = 1};
    app::Placement placement;
    const auto backend = app::place_backend(options, cpus_, model_, "warning", placement);
    StepLoop loop(*backend, model_.program, kMaxContext);
    loop.touch_blocks();
    loop.set_sequences(point.batch, point.context);
    loop.run_steps(3);
    const double rough_s = loop.run_steps(2);
    const auto steps = std::clamp(static_cast<int32_t>(kEnoughSeconds / 5 / rough_s), 2, 200);
    const OtherWork other_work;
    std::vector<double> rounds;
    for (int i = 0; i < 5; ++i) rounds.push_back(loop.run_steps(steps));
    std::sort(rounds.begin(), rounds.end());
    return {.step_s = rounds[2],
            .spread = (rounds.back() - rounds.front()) / rounds[2],
            .others = other_work.share()};
  }

  app::ServeOptions options_;
  app::ProcessCpus cpus_;
  ModelWork work_;
  app::LoadedModel model_;
  ThreadPool model_pool_;
  ThreadPool attention_pool_;
  planner::MeteredModel metered_;
  std::unique_ptr<planner::Meter> meter_;
};

}  // namespace
}  // namespace lamina::bench

int main(int argc, char** argv) {
  if (argc == 2 && argv[1] == lamina::measure::kPeerArgument) return lamina::measure::run_peer();
  return lamina::bench::run_with_serve_options(
      argc,
      argv,
      "model",
      {"--threads",
       "1",
       "--skip-tokenizer-init",
       "--max-num-seqs",
       "64",
       "--max-model-len",
       "4096"},
      [](const lamina::app::ServeOptions& options, int64_t seed) {
        lamina::bench::Bench(options).run(static_cast<uint64_t>(seed));
        return 0;
      });
}
