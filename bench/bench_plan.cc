// What `lamina profile` and the planner's model predict, beside what decoding steps take: points
// (sequences B, context S, attention workers b, micro-batches n) drawn from a seed, none of which a
// profile has measured, over a model worker on one core and attention workers, processes of their
// own, on another. Profiles and rounds of steps are measured in turns, because bandwidth drifts. Of
// a point's rounds, and of the profiles before, between and after them, the least times count: a
// machine that is shared, also by other virtual ones, which nothing here sees, is only ever slower.
// What was measured while other programs worked is measured again, for a while. Prints a line a
// point and the errors; asserts nothing.
//   lamina_bench_plan MODEL [seed [flags of lamina serve]]
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>
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
constexpr int kProfiles = 2;     // of a point, beside that before it
constexpr int kRounds = 4;       // before each of them
constexpr double kQuiet = 0.03;  // share of both cores that others may take
constexpr int kMostTries = 4;
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
  constexpr int kMostSeconds = 20;
  for (int i = 0; i < kMostSeconds; ++i) {
    const OtherWork other_work({kModelCore, kAttentionCore});
    std::this_thread::sleep_for(std::chrono::seconds(1));
    if (other_work.share() < kQuiet) return;
  }
}

// What body() gives while others leave the machine alone, or after as many tries what it gave when
// they took least of it; and what that was.
template <typename Body>
auto while_quiet(const Body& body) {
  std::optional<decltype(body())> best;
  double least = 1;
  for (int i = 0; i < kMostTries && least > kQuiet; ++i) {
    if (i > 0) wait_until_quiet();
    const OtherWork other_work({kModelCore, kAttentionCore});
    auto result = body();
    const double share = other_work.share();
    if (best && share >= least) continue;
    best = std::move(result);
    least = share;
  }
  return std::pair(*std::move(best), least);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

app::ProcessCpus on_core(app::ProcessCpus cpus, int core) {
  cpus.share = {.num_threads = 1, .cpus = {core}};
  return cpus;
}

// A model worker on one pool's core and attention workers on another's, deployed for one point.
class Deployment {
 public:
  struct Pools {
    StreamView model;
    StreamView attention;
  };

  Deployment(app::PlacementOptions options,
             const app::ProcessCpus& cpus,
             const app::LoadedModel& model,
             const Pools& pools,
             const Point& point) {
    options.security.cluster_secret = app::random_secret();
    const app::CpuShare core{.num_threads = 1, .cpus = {kAttentionCore}};
    // Processes inherit their place from the thread that starts them.
    pools.attention.adopt_this_thread();
    workers_.emplace(
        app::LocalWorkersConfig{.cpus = std::vector(static_cast<size_t>(point.workers), core),
                                .kv_memory_bytes = uint64_t{1} << 30,
                                .secret = options.security.cluster_secret,
                                .log_level = "warning"});
    for (const auto& address : workers_->addresses()) {
      options.attention_worker.push_back(address.to_string());
    }
    pools.model.adopt_this_thread();
    backend_ = app::place_backend(options, cpus, model, "warning", placement_);
    loop_.emplace(*backend_, model.program, kMaxContext);
    loop_->touch_blocks();
    loop_->set_sequences(point.batch, point.context);
    loop_->run_steps(3);
    constexpr double kRoundSeconds = 0.5;
    num_steps_ = std::clamp(static_cast<int32_t>(kRoundSeconds / loop_->run_steps(2)), 3, 500);
  }

  // Of a step of all micro-batches; and in it, as the workers note it themselves.
  struct Round {
    double step_s = 0;
    double model_s = 0;
    double attention_s = 0;
  };
  Round round() {
    backend_->take_sample();
    const double step_s = loop_->run_steps(num_steps_);
    const PipelineSample sample = backend_->take_sample();
    return {.step_s = step_s,
            .model_s = sample.slice_s / num_steps_,
            .attention_s = sample.attention_s / num_steps_};
  }

 private:
  std::optional<app::LocalWorkers> workers_;
  app::Placement placement_;
  std::unique_ptr<StepBackend> backend_;
  std::optional<StepLoop> loop_;
  int32_t num_steps_ = 0;
};

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
                                         .working_set_bytes = uint64_t{128} << 20,
                                         .time = std::chrono::milliseconds(10),
                                         .least_runs = 3},
                                        StreamView(model_pool_),
                                        StreamView(attention_pool_),
                                        &metered_)) {}

  void run(uint64_t seed) {
    fmt::print(
        "seed {}; times in ms; slices and attention as predicted and as the workers note them; "
        "others: their share of both cores\n"
        "{:>4} {:>8} {:>3} {:>3} {:>9} {:>8} {:>10} {:>8}  {:>16}  {:>16} {:>6} {:>8}\n",
        seed,
        "B",
        "S",
        "b",
        "n",
        "measured",
        "median",
        "predicted",
        "error",
        "slices",
        "attention",
        "wire",
        "others");
    std::vector<planner::Profile> profiles = {profile()};
    std::vector<double> errors;
    std::vector<double> throughput_errors;
    for (const Point& point : draw_points(seed)) {
      const Measured measured = measure(point, profiles);
      const planner::ProfileFit fit(joined(profiles));
      const StepEstimate predicted = predict(point, fit);
      profiles.erase(profiles.begin(), profiles.end() - 1);
      errors.push_back(predicted.step_s / measured.step.step_s - 1.0);
      throughput_errors.push_back(measured.step.step_s / predicted.step_s - 1.0);
      const double rows = predicted.num_tokens;
      print(point,
            measured,
            predicted,
            point.micro_batches == 1 ? fit.in_turns(rows) : fit.side_by_side(rows));
    }
    print_errors("a step's time", errors);
    print_errors("tokens a second", throughput_errors);
  }

 private:
  struct Measured {
    Deployment::Round step;  // of the shortest round
    double median_s = 0;     // of the rounds' steps
    double others = 0;       // most of the cores that others took in one of them
  };

  static void print(const Point& point,
                    const Measured& measured,
                    const StepEstimate& predicted,
                    const PaceFactors& pace) {
    fmt::print(
        "{:>4} {:>8} {:>3} {:>3} {:>9.2f} {:>8.2f} {:>10.2f} {:>+6.1f} %  {:>7.2f} {:>8.2f}  "
        "{:>7.2f} {:>8.2f} {:>6.2f} {:>6.1f} %   {:.2f} {:.2f}\n",
        point.batch,
        point.context,
        point.workers,
        point.micro_batches,
        1e3 * measured.step.step_s,
        1e3 * measured.median_s,
        1e3 * predicted.step_s,
        100 * (predicted.step_s / measured.step.step_s - 1.0),
        1e3 * point.micro_batches * predicted.model_s,
        1e3 * measured.step.model_s,
        1e3 * point.micro_batches * predicted.attention_s,
        1e3 * measured.step.attention_s,
        1e3 * predicted.wire_s,
        100 * measured.others,
        pace.slices,
        pace.attention);
    std::fflush(stdout);
  }

  static void print_errors(const std::string& what, const std::vector<double>& errors) {
    double sum = 0;
    double worst = 0;
    for (const double error : errors) {
      sum += std::abs(error);
      worst = std::max(worst, std::abs(error));
    }
    fmt::print("error of {}: {:.1f} % in the mean, {:.1f} % at worst\n",
               what,
               100 * sum / static_cast<double>(errors.size()),
               100 * worst);
  }

  [[nodiscard]] planner::Profile profile() {
    planner::ProfileGrid grid = planner::ProfileGrid::of(work_, kMaxBatch, kMaxContext);
    grid.add_slices(kMaxBatch);
    grid.rows = {1, kMaxBatch};  // slices are measured whole
    grid.sequences = {3, 16, kMaxBatch};
    grid.contexts = {128, 1024, kMaxContext};
    return while_quiet([&] {
             planner::Profile profile{
                 .machine = "this", .device = "cpu", .transport = "shm", .model = work_.name};
             planner::measure(*meter_, grid, profile);
             return profile;
           })
        .first;
  }

  static planner::Profile joined(const std::vector<planner::Profile>& profiles) {
    planner::Profile all = profiles.front();
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    for (size_t i = 1; i < profiles.size(); ++i) {
      append(all.slices, profiles[i].slices);
      append(all.paces, profiles[i].paces);
      append(all.products, profiles[i].products);
      append(all.attention, profiles[i].attention);
      append(all.transports, profiles[i].transports);
    }
    return all;
  }

  [[nodiscard]] StepEstimate predict(const Point& point, const planner::ProfileFit& fit) const {
    const PlacementSpec placement{.num_attention_workers = point.workers,
                                  .num_micro_batches = point.micro_batches};
    KvPartition heads{.num_kv_heads = work_.num_kv_heads, .num_blocks = 1, .tiles = {}};
    for (const HeadRange& range : split_heads(work_.num_kv_heads, point.workers)) {
      heads.tiles.push_back({static_cast<int32_t>(heads.tiles.size()), range, {0, 1}});
    }
    const planner::ProfiledCosts costs(
        work_, placement, heads, fit, {.workers_per_device = point.workers, .has_both = true});
    return estimate_step(costs, placement, work_.num_layers, point.batch, point.context);
  }

  // Rounds of steps, and a profile after each.
  Measured measure(const Point& point, std::vector<planner::Profile>& profiles) {
    model_.program.rotation = {.num_micro_batches = point.micro_batches, .num_replicas = 1};
    const Deployment::Pools pools = {StreamView(model_pool_), StreamView(attention_pool_)};
    Deployment deployment(options_.placement, cpus_, model_, pools, point);
    std::vector<double> step_s;
    Measured measured;
    for (int i = 0; i < kProfiles * kRounds; ++i) {
      StreamView(model_pool_).adopt_this_thread();
      const auto [round, share] = while_quiet([&] { return deployment.round(); });
      if (step_s.empty() || round.step_s < measured.step.step_s) measured.step = round;
      step_s.push_back(round.step_s);
      measured.others = std::max(measured.others, share);
      if (i % kRounds == kRounds - 1) profiles.push_back(profile());
    }
    measured.median_s = median(step_s);
    return measured;
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
