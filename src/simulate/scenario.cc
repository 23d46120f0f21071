#include "simulate/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/checked_math.h"
#include "base/rng.h"

namespace lamina::simulate {
namespace {

using std::chrono::microseconds;

constexpr auto kLastKind = static_cast<int32_t>(wire::MessageKind::kCarried);

class Dice {
 public:
  explicit Dice(uint64_t seed) : rng_(seed) {}

  // Uniform over [low, high].
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(rng_.next_below(static_cast<uint64_t>(high - low) + 1));
  }
  bool chance(double probability) { return rng_.next_double() < probability; }
  // Of any order of magnitude.
  Duration time(Duration low, Duration high) {
    const double ratio = static_cast<double>(high.count()) / static_cast<double>(low.count());
    return Duration(
        std::llround(static_cast<double>(low.count()) * std::pow(ratio, rng_.next_double())));
  }
  Duration up_to(Duration most) {
    return Duration(rng_.next_below(static_cast<uint64_t>(most.count()) + 1));
  }
  uint64_t seed() { return rng_.next_u64(); }

 private:
  Rng rng_;
};

FakeModelConfig draw_model(Dice& dice) {
  FakeModelConfig model;
  model.num_layers = dice.between(1, 4);
  model.num_kv_heads = dice.between(1, 4);
  model.num_heads = model.num_kv_heads * dice.between(1, 2);
  model.head_dim = dice.between(2, 4);
  model.value_dim = dice.between(1, 3);
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    model.windows.push_back(dice.chance(0.3) ? std::optional(dice.between(1, 12)) : std::nullopt);
  }
  return model;
}

ComputeTimes draw_times(Dice& dice) {
  ComputeTimes times;
  times.slice = dice.time(microseconds(5), microseconds(1000));
  times.last_slice = times.slice / dice.between(1, 4);
  times.attention = dice.time(microseconds(2), microseconds(1000));
  times.q_share = 0.25 * dice.between(1, 4);
  times.early_share = 0.25 * dice.between(0, 3);
  times.spread = dice.chance(0.8) ? 0.5 : 0;
  return times;
}

SimLinkConfig draw_link(Dice& dice) {
  SimLinkConfig link;
  link.latency = dice.time(microseconds(1), microseconds(200));
  link.bandwidth_bytes_per_us = 10.0 * dice.between(1, 100);
  if (dice.chance(0.6)) link.jitter = dice.time(microseconds(1), microseconds(500));
  link.reorder = dice.chance(0.6);
  if (dice.chance(0.4)) link.loss_probability = 0.01 * dice.between(1, 10);
  link.detection_delay = dice.time(microseconds(10), microseconds(20000));
  return link;
}

std::vector<RequestSpec> draw_requests(Dice& dice, Duration step_time, int32_t vocab_size) {
  std::vector<RequestSpec> requests(static_cast<size_t>(dice.between(1, 12)));
  const Duration spread = step_time * dice.between(0, 20);
  for (RequestSpec& request : requests) {
    request.arrives_after = dice.up_to(spread);
    const int32_t length = dice.chance(0.2) ? dice.between(12, 36) : dice.between(1, 12);
    for (int32_t i = 0; i < length; ++i) request.prompt.push_back(dice.between(0, vocab_size - 1));
    request.max_tokens = dice.chance(0.4) ? dice.between(8, 27) : dice.between(0, 8);
    if (dice.chance(0.2)) request.stop_token = dice.between(0, vocab_size - 1);
    if (dice.chance(0.2))
      request.cancelled_after = request.arrives_after + dice.up_to(8 * step_time);
  }
  return requests;
}

SessionSpec draw_session(Dice& dice, int32_t min_blocks) {
  SessionSpec session;
  session.partition = static_cast<PartitionKind>(dice.between(0, 4));
  const bool is_even = dice.chance(0.5);
  for (int32_t i = dice.between(1, 5); i > 0; --i) {
    session.worker_speeds.push_back(is_even ? 1 : dice.between(1, 4));
  }
  session.max_blocks = min_blocks + dice.between(0, dice.chance(0.5) ? 3 : 3 * min_blocks);
  return session;
}

void draw_faults(Dice& dice, Duration step_time, SessionSpec& session) {
  for (int32_t i = dice.between(0, 2); i > 0; --i) {
    session.faults.push_back({.kind = static_cast<FaultKind>(dice.between(0, 2)),
                              .idx = static_cast<size_t>(dice.between(0, 1000)),
                              .after = dice.up_to(15 * step_time)});
  }
  if (session.faults.empty()) session.rebalanced_after = dice.up_to(15 * step_time);
}

StaleMessage draw_stale_message(Dice& dice, Duration step_time) {
  return {.kind = static_cast<wire::MessageKind>(dice.between(1, kLastKind)),
          .after = dice.up_to(3 * step_time)};
}

std::vector<ActiveChange> draw_active_changes(Dice& dice, Duration step_time, int32_t most) {
  std::vector<ActiveChange> changes(static_cast<size_t>(dice.chance(0.4) ? dice.between(1, 8) : 0));
  for (ActiveChange& change : changes) {
    change = {.after = dice.up_to(30 * step_time), .num_micro_batches = dice.between(1, most)};
  }
  std::sort(changes.begin(), changes.end(), [](const ActiveChange& a, const ActiveChange& b) {
    return a.after < b.after;
  });
  return changes;
}

}  // namespace

int32_t Scenario::max_model_len() const {
  size_t most = 0;
  for (const RequestSpec& request : requests) {
    most = std::max(most, request.prompt.size() + static_cast<size_t>(request.max_tokens));
  }
  return static_cast<int32_t>(most);
}

int32_t Scenario::min_blocks() const {
  return ceil_div(max_model_len(), block_size);
}

Scenario draw_scenario(uint64_t seed) {
  Dice dice(seed);
  Scenario scenario;
  scenario.seed = seed;
  scenario.model = draw_model(dice);
  scenario.kv_dtype = static_cast<DType>(dice.chance(0.5) ? DType::kF32 : DType::kBF16);
  scenario.rotation.num_replicas = dice.between(1, 8);
  scenario.rotation.num_micro_batches = dice.between(1, scenario.rotation.num_replicas + 2);
  scenario.overlap = dice.chance(0.5);
  scenario.block_size = dice.between(1, 8);
  scenario.times = draw_times(dice);
  scenario.link = draw_link(dice);
  scenario.engine_step = dice.up_to(microseconds(50));
  scenario.reopening = dice.up_to(microseconds(5000));
  const Duration layer_time = scenario.times.slice + scenario.times.attention +
                              2 * (scenario.link.latency + scenario.link.jitter);
  const Duration step_time = layer_time * scenario.model.num_layers;
  scenario.requests = draw_requests(dice, step_time, scenario.model.vocab_size);
  scenario.max_num_seqs = dice.between(1, 10);
  scenario.max_num_batched_tokens = scenario.max_num_seqs + dice.between(0, 20);
  const int32_t num_faulty = dice.chance(0.5) ? dice.between(1, 3) : 0;
  for (int32_t i = 0; i < num_faulty; ++i) {
    scenario.sessions.push_back(draw_session(dice, scenario.min_blocks()));
    draw_faults(dice, step_time, scenario.sessions.back());
    if (i > 0 && dice.chance(0.5)) {
      scenario.sessions.back().stale_message = draw_stale_message(dice, step_time);
    }
  }
  scenario.sessions.push_back(draw_session(dice, scenario.min_blocks()));
  scenario.active_changes =
      draw_active_changes(dice, step_time, scenario.rotation.num_micro_batches);
  return scenario;
}

std::string Scenario::to_string() const {
  const auto us = [](Duration duration) { return static_cast<double>(duration.count()) * 1e-3; };
  std::string text = fmt::format(
      "{} layers, {} heads, {} KV heads; {} micro-batches over {} replicas, {}; {} sequences, {} "
      "tokens a step, blocks of {}; slice {} us, attention {} us; latency {} us, jitter {} us, "
      "loss {}{}",
      model.num_layers,
      model.num_heads,
      model.num_kv_heads,
      rotation.num_micro_batches,
      rotation.num_replicas,
      overlap ? "overlap" : "no overlap",
      max_num_seqs,
      max_num_batched_tokens,
      block_size,
      us(times.slice),
      us(times.attention),
      us(link.latency),
      us(link.jitter),
      link.loss_probability,
      link.reorder ? ", reorder" : "");
  for (const RequestSpec& request : requests) {
    text += fmt::format("\n  after {} us a request of {} tokens for {}{}",
                        us(request.arrives_after),
                        request.prompt.size(),
                        request.max_tokens,
                        request.cancelled_after
                            ? fmt::format(", cancelled after {} us", us(*request.cancelled_after))
                            : "");
  }
  for (const ActiveChange& change : active_changes) {
    text += fmt::format(
        "\n  after {} us {} micro-batches are active", us(change.after), change.num_micro_batches);
  }
  for (const SessionSpec& session : sessions) {
    text += fmt::format("\n  session of {} workers by {}, at most {} blocks, {} faults{}{}",
                        session.worker_speeds.size(),
                        partition_name(session.partition),
                        session.max_blocks,
                        session.faults.size(),
                        session.stale_message ? ", a stale message" : "",
                        session.rebalanced_after ? ", then another" : "");
  }
  return text;
}

}  // namespace lamina::simulate
