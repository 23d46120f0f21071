#include "simulate/trace_replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>

#include "base/checked_math.h"
#include "base/clock.h"
#include "plan/decode_estimate.h"

namespace lamina::simulate {
namespace {

Duration nanoseconds(double seconds) {
  return Duration(static_cast<int64_t>(std::llround(1e9 * seconds)));
}

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

double percentile(std::vector<float>& values, double share) {
  const auto at = static_cast<ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

Percentiles percentiles_of(std::vector<float>& values) {
  if (values.empty()) return {};
  return {.mean = std::accumulate(values.begin(), values.end(), 0.0) /
                  static_cast<double>(values.size()),
          .p50 = percentile(values, 0.5),
          .p90 = percentile(values, 0.9),
          .p99 = percentile(values, 0.99)};
}

// A step under way, and what of it is left. What it takes is in seconds.
struct RunningStep {
  StepPlan plan;
  int32_t num_sequences = 0;
  double alone_s = 0;
  double model_s = 0;
  double attention_s = 0;
  double network_s = 0;
  double left = 1.0;  // of 1
};

// Sequences, summed over seconds.
struct Queue {
  double waiting = 0;
  double running = 0;
};

class Replay {
 public:
  Replay(const ReplayConfig& config,
         const StepCosts& costs,
         std::span<const ReplayRequest> requests)
      : config_(config),
        costs_(costs),
        requests_(requests),
        scheduler_(scheduler_config(config)),
        steps_(static_cast<size_t>(config.placement.num_micro_batches)),
        last_token_at_(requests.size()) {}

  ReplayResult run() {
    while (next_request_ < requests_.size() || num_live_ > 0) {
      admit_arrivals();
      start_steps();
      advance();
    }
    return result();
  }

 private:
  static SchedulerConfig scheduler_config(const ReplayConfig& config);

  void admit_arrivals();
  void note_queue(Duration time);
  [[nodiscard]] bool is_overloaded() const;
  void start_steps();
  [[nodiscard]] RunningStep costed(StepPlan plan) const;
  [[nodiscard]] double pace_s(const RunningStep& step) const;
  void advance();
  void progress(Duration time);
  void finish(int32_t micro_batch);
  void deliver(Sequence& sequence);
  [[nodiscard]] bool is_running() const {
    return std::any_of(steps_.begin(), steps_.end(), [](const auto& s) { return s.has_value(); });
  }
  ReplayResult result();

  const ReplayConfig& config_;
  const StepCosts& costs_;
  std::span<const ReplayRequest> requests_;
  ManualClock clock_;
  Scheduler scheduler_;
  std::vector<std::optional<RunningStep>> steps_;  // by micro-batch
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<TimePoint> last_token_at_;  // of each request
  size_t next_request_ = 0;
  int64_t num_live_ = 0;

  std::vector<float> tbt_s_;
  std::vector<float> ttft_s_;
  ReplayResult result_;
  std::array<Queue, 2> halves_;  // of the time in which requests come
  double busy_s_ = 0;            // somebody ran
  double model_s_ = 0;
  double attention_s_ = 0;
  double sequence_seconds_ = 0;
};

SchedulerConfig Replay::scheduler_config(const ReplayConfig& config) {
  // Prompts that were computed elsewhere enter whole, however long.
  const bool shared = config.prefill == Prefill::kShared;
  constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max() / 2;
  return {.blocks = config.blocks,
          .block_size = config.block_size,
          .num_micro_batches = config.placement.num_micro_batches,
          .max_num_seqs = config.max_num_seqs,
          .max_num_batched_tokens =
              shared ? std::max(config.max_num_batched_tokens, config.max_num_seqs) : kNoLimit,
          .max_logits_rows = config.max_num_seqs + 1};
}

void Replay::admit_arrivals() {
  for (; next_request_ < requests_.size(); ++next_request_) {
    const ReplayRequest& request = requests_[next_request_];
    if (TimePoint(nanoseconds(request.arrives_s)) > clock_.now()) return;
    auto sequence = std::make_unique<Sequence>();
    sequence->id = next_request_;
    sequence->tokens.assign(static_cast<size_t>(request.num_prompt_tokens), 0);
    sequence->num_prompt_tokens = request.num_prompt_tokens;
    sequence->max_total_tokens = request.num_prompt_tokens + request.num_generated_tokens;
    scheduler_.add(sequence.get());
    sequences_.push_back(std::move(sequence));
    ++num_live_;
    result_.arrivals_s = seconds(clock_.now() - TimePoint());
  }
}

// Before the clock goes on by `time`.
void Replay::note_queue(Duration time) {
  if (next_request_ == requests_.size()) return;
  const double middle_s = (requests_.front().arrives_s + requests_.back().arrives_s) / 2;
  Queue& half = halves_[seconds(clock_.now() - TimePoint()) < middle_s ? 0 : 1];
  half.waiting += seconds(time) * static_cast<double>(scheduler_.waiting().size());
  half.running += seconds(time) * static_cast<double>(scheduler_.running().size());
}

bool Replay::is_overloaded() const {
  const Queue& first = halves_[0];
  const Queue& second = halves_[1];
  return second.waiting > second.running && second.waiting > first.waiting;
}

void Replay::start_steps() {
  scheduler_.share_out();
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (steps_[i]) continue;
    StepPlan plan = scheduler_.schedule(static_cast<int32_t>(i));
    if (!plan.empty()) steps_[i] = costed(std::move(plan));
  }
  result_.peak_blocks = std::max(
      result_.peak_blocks,
      static_cast<double>(scheduler_.blocks().num_used()) / scheduler_.blocks().num_blocks());
}

RunningStep Replay::costed(StepPlan plan) const {
  double positions = 0;
  for (const SequenceStep& step : plan.sequences) {
    positions += step.first_position + step.num_tokens;
  }
  const bool shared = config_.prefill == Prefill::kShared;
  const auto num_sequences = static_cast<double>(plan.sequences.size());
  const double num_tokens = shared ? plan.num_tokens() : num_sequences;
  // What it takes with no other one under way.
  PlacementSpec alone = config_.placement;
  alone.num_micro_batches = 1;
  const StepEstimate step =
      estimate_step(costs_, alone, config_.num_layers, num_tokens, positions / num_tokens);
  return {.plan = std::move(plan),
          .num_sequences = static_cast<int32_t>(num_sequences),
          .alone_s = step.step_s,
          .model_s = step.model_s,
          .attention_s = step.attention_s,
          .network_s = step.network_busy * step.step_s};
}

// Seconds that `step` would take from beginning to end, if what is under way now stayed.
double Replay::pace_s(const RunningStep& step) const {
  double model_s = 0;
  double attention_s = 0;
  double network_s = 0;
  for (const auto& other : steps_) {
    if (!other) continue;
    model_s += other->model_s;
    attention_s += other->attention_s;
    network_s += other->network_s;
  }
  return std::max({step.alone_s,
                   attention_s + costs_.host_s(),
                   model_s / config_.placement.num_replicas + costs_.host_s(),
                   network_s + costs_.host_s()});
}

void Replay::advance() {
  // The next end of a step, or the next arrival if that comes first.
  double next_s = std::numeric_limits<double>::infinity();
  int32_t ending = -1;
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (!steps_[i]) continue;
    const double end_s = steps_[i]->left * pace_s(*steps_[i]);
    if (end_s >= next_s) continue;
    next_s = end_s;
    ending = static_cast<int32_t>(i);
  }
  Duration time = ending >= 0 ? nanoseconds(next_s) : Duration::max();
  if (next_request_ < requests_.size()) {
    const TimePoint arrival(nanoseconds(requests_[next_request_].arrives_s));
    const Duration wait = arrival - clock_.now();
    if (wait < time) {
      time = wait;
      ending = -1;
    }
  }
  LAMINA_CHECK(time != Duration::max(), "sequences are left, and nothing runs");
  progress(time);
  note_queue(time);
  clock_.advance(time);
  if (ending >= 0) finish(ending);
}

void Replay::progress(Duration time) {
  const double time_s = seconds(time);
  if (!is_running()) return;
  busy_s_ += time_s;
  std::vector<double> shares(steps_.size(), 0.0);
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (steps_[i]) shares[i] = time_s / pace_s(*steps_[i]);
  }
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (!steps_[i]) continue;
    steps_[i]->left -= shares[i];
    model_s_ += shares[i] * steps_[i]->model_s / config_.placement.num_replicas;
    attention_s_ += shares[i] * steps_[i]->attention_s;
    sequence_seconds_ += time_s * steps_[i]->num_sequences;
  }
}

void Replay::finish(int32_t micro_batch) {
  const StepPlan plan = std::move(steps_[static_cast<size_t>(micro_batch)]->plan);
  steps_[static_cast<size_t>(micro_batch)].reset();
  ++result_.num_steps;
  std::vector<SequenceOutput> outputs;
  outputs.reserve(plan.sequences.size());
  for (const SequenceStep& step : plan.sequences) {
    outputs.push_back({.slot = step.slot, .sampled = step.samples});
  }
  scheduler_.complete(micro_batch, plan, outputs);
  for (const SequenceStep& step : plan.sequences) {
    Sequence* const sequence = scheduler_.in_slot(step.slot);
    if (sequence != nullptr && step.samples) deliver(*sequence);
  }
}

void Replay::deliver(Sequence& sequence) {
  const auto idx = static_cast<size_t>(sequence.id);
  const TimePoint now = clock_.now();
  ++result_.num_tokens;
  if (sequence.num_generated() == 1) {
    const TimePoint arrival(nanoseconds(requests_[idx].arrives_s));
    ttft_s_.push_back(static_cast<float>(seconds(now - arrival)));
  } else {
    tbt_s_.push_back(static_cast<float>(seconds(now - last_token_at_[idx])));
  }
  last_token_at_[idx] = now;
  if (sequence.num_tokens() < sequence.max_total_tokens) return;
  scheduler_.remove(&sequence);
  sequences_[idx].reset();
  --num_live_;
}

ReplayResult Replay::result() {
  result_.num_requests = static_cast<int64_t>(requests_.size());
  result_.is_overloaded = is_overloaded();
  result_.num_preemptions = scheduler_.num_preemptions();
  result_.duration_s = seconds(clock_.now() - TimePoint());
  result_.tokens_per_s = static_cast<double>(result_.num_tokens) / result_.duration_s;
  result_.mean_batch = sequence_seconds_ / busy_s_;
  result_.tbt_s = percentiles_of(tbt_s_);
  result_.ttft_s = percentiles_of(ttft_s_);
  result_.model_idle = 1.0 - model_s_ / busy_s_;
  result_.attention_idle = 1.0 - attention_s_ / busy_s_;
  result_.idle = 1.0 - busy_s_ / result_.duration_s;
  return result_;
}

Status check(const ReplayConfig& config, std::span<const ReplayRequest> requests) {
  if (requests.empty()) return invalid_argument("replay: no requests");
  double before_s = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const ReplayRequest& request = requests[i];
    const int64_t tokens = int64_t{request.num_prompt_tokens} + request.num_generated_tokens;
    const int64_t room = int64_t{config.blocks.total()} * config.block_size;
    if (request.num_prompt_tokens < 1 || request.num_generated_tokens < 1 || tokens > room) {
      return invalid_argument(fmt::format("replay: request {} of {} + {} tokens, of {} at most",
                                          i,
                                          request.num_prompt_tokens,
                                          request.num_generated_tokens,
                                          room));
    }
    if (!(request.arrives_s >= before_s)) {
      return invalid_argument(fmt::format("replay: request {} is out of order", i));
    }
    before_s = request.arrives_s;
  }
  return {};
}

}  // namespace

Result<ReplayResult> replay(const ReplayConfig& config,
                            const StepCosts& costs,
                            std::span<const ReplayRequest> requests) {
  LAMINA_RETURN_IF_ERROR(check(config, requests));
  return Replay(config, costs, requests).run();
}

}  // namespace lamina::simulate
