#include "simulate/ideal_pipeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace lamina::simulate {
namespace {

TimePoint begin_of(const Outcome& outcome, int32_t micro_batch, int64_t slice) {
  // The last slice of a step has the number of the next step's first, which is the longer.
  TimePoint begin = TimePoint::max();
  for (const Work& work : outcome.slices) {
    if (work.micro_batch == micro_batch && work.slice == slice) begin = work.begin;
  }
  LAMINA_CHECK(begin != TimePoint::max(), "the slice did not run");
  return begin;
}

int32_t num_micro_batches(const Outcome& outcome) {
  int32_t last = 0;
  for (const Work& work : outcome.slices) last = std::max(last, work.micro_batch);
  return last + 1;
}

double busy_ns(const std::vector<Work>& works, TimePoint from, TimePoint to) {
  Duration busy{};
  for (const Work& work : works) {
    const TimePoint begin = std::max(work.begin, from);
    const TimePoint end = std::min(work.end, to);
    if (begin < end) busy += end - begin;
  }
  return static_cast<double>(busy.count());
}

std::string cell(const std::vector<Work>& works, int32_t worker_idx, TimePoint at) {
  for (const Work& work : works) {
    if (work.worker_idx != worker_idx || at < work.begin || at >= work.end) continue;
    return fmt::format("{}.{}", work.micro_batch, work.slice);
  }
  return "--";
}

}  // namespace

Scenario ideal_scenario(const IdealPipeline& pipeline) {
  const int32_t n = pipeline.rotation.num_micro_batches;
  Scenario scenario;
  scenario.model.num_layers = pipeline.num_layers;
  scenario.model.value_dim = 1;
  scenario.model.max_positions = pipeline.num_steps + 1;
  scenario.model.windows.assign(static_cast<size_t>(pipeline.num_layers), std::nullopt);
  scenario.rotation = pipeline.rotation;
  scenario.max_num_seqs = n;
  scenario.max_num_batched_tokens = n;
  scenario.times.slice = pipeline.slice;
  scenario.times.last_slice = pipeline.last_slice;
  scenario.times.attention = pipeline.attention;
  scenario.engine_step = pipeline.engine_step;
  scenario.link.latency = pipeline.network / 2;
  scenario.link.bandwidth_bytes_per_us = 1e12;
  for (int32_t i = 0; i < n; ++i) {
    scenario.requests.push_back({.arrives_after = i * pipeline.stagger,
                                 .prompt = {i},
                                 .max_tokens = pipeline.num_steps,
                                 .stop_token = {},
                                 .cancelled_after = {}});
  }
  scenario.sessions.push_back({.partition = PartitionKind::kHead,
                               .worker_speeds = {1},
                               .max_blocks = n * (scenario.min_blocks() + 1),
                               .faults = {},
                               .rebalanced_after = {}});
  scenario.keeps_work = true;
  return scenario;
}

Duration layer_bound(const IdealPipeline& pipeline) {
  const int32_t n = pipeline.rotation.num_micro_batches;
  return std::max({n * pipeline.attention,
                   n * pipeline.slice / pipeline.rotation.num_replicas,
                   pipeline.slice + pipeline.attention + pipeline.network});
}

Duration step_bound(const IdealPipeline& pipeline) {
  const int32_t n = pipeline.rotation.num_micro_batches;
  const Duration slices = pipeline.num_layers * pipeline.slice + pipeline.last_slice;
  const Duration attention = pipeline.num_layers * pipeline.attention;
  const Duration network = (pipeline.num_layers + 1) * pipeline.network;
  return std::max({n * attention,
                   n * slices / pipeline.rotation.num_replicas,
                   n * pipeline.engine_step,
                   slices + attention + network + pipeline.engine_step});
}

double layer_time_ns(const Outcome& outcome, int64_t from_slice, int64_t to_slice) {
  Duration sum{};
  const int32_t n = num_micro_batches(outcome);
  for (int32_t i = 0; i < n; ++i) {
    sum += begin_of(outcome, i, to_slice) - begin_of(outcome, i, from_slice);
  }
  return static_cast<double>(sum.count()) / static_cast<double>(n * (to_slice - from_slice));
}

BusyShares busy_shares(const Outcome& outcome,
                       const IdealPipeline& pipeline,
                       int64_t from_slice,
                       int64_t to_slice) {
  TimePoint from = TimePoint::min();
  TimePoint to = TimePoint::max();
  for (int32_t i = 0; i < num_micro_batches(outcome); ++i) {
    from = std::max(from, begin_of(outcome, i, from_slice));
    to = std::min(to, begin_of(outcome, i, to_slice));
  }
  const auto time_ns = static_cast<double>((to - from).count());
  return {
      .replicas = busy_ns(outcome.slices, from, to) / (time_ns * pipeline.rotation.num_replicas),
      .attention = busy_ns(outcome.attentions, from, to) / time_ns};
}

std::string schedule_table(const Outcome& outcome,
                           const IdealPipeline& pipeline,
                           Duration unit,
                           int32_t num_units) {
  std::string text = "unit      ";
  for (int32_t i = 0; i < num_units; ++i) text += fmt::format(" {:<3}", i);
  const auto add_row = [&](const std::string& name, const auto& works, int32_t worker_idx) {
    text += fmt::format("\n{:<10}", name);
    for (int32_t i = 0; i < num_units; ++i) {
      text += fmt::format(" {:<3}", cell(works, worker_idx, TimePoint(i * unit + unit / 2)));
    }
  };
  for (int32_t i = 0; i < pipeline.rotation.num_replicas; ++i) {
    add_row(fmt::format("replica {}", i + 1), outcome.slices, i);
  }
  add_row("attention", outcome.attentions, 0);
  return text;
}

}  // namespace lamina::simulate
