#include "planner/report/plan_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace lamina::planner {
namespace {

constexpr std::array kBatches = {1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0};
constexpr std::array kContexts = {2048.0, 4096.0, 8192.0, 16384.0};

// One device each, times alone: memory's size does not matter.
AnalyticCosts unit_costs(const ModelWork& model,
                         const PlacementDevices& devices,
                         const Assumptions& assumptions,
                         int32_t ranks) {
  const KvPartition whole{.num_kv_heads = model.num_kv_heads,
                          .num_blocks = 1,
                          .tiles = {{0, {0, model.num_kv_heads}, {0, 1}}}};
  const PlacementSpec placement{.tensor_parallel = ranks, .num_attention_workers = 1};
  return {model, placement, devices, assumptions, whole};
}

Chart model_roofline(const Question& question) {
  Chart chart{.title = "Products of a step (Fig. 2)",
              .x_label = "sequences",
              .y_label = "ms",
              .is_log_x = true,
              .is_log_y = true,
              .series = {}};
  for (const int32_t ranks : {1, 2, 4, 8}) {
    for (const bool is_bound : {false, true}) {
      if (is_bound && ranks > 1) continue;
      const Assumptions assumed = is_bound ? question.assumptions.ideal() : question.assumptions;
      const AnalyticCosts costs = unit_costs(*question.model, question.devices, assumed, ranks);
      ChartSeries series{.name = is_bound ? "TP 1, roofline" : fmt::format("TP {}", ranks),
                         .points = {},
                         .is_dashed = is_bound};
      for (const double batch : kBatches) {
        series.points.push_back({batch, 1e3 * costs.model_s(batch)});
      }
      chart.series.push_back(std::move(series));
    }
  }
  return chart;
}

Chart attention_roofline(const Question& question) {
  Chart chart{.title = "Attention of a step on one device (Fig. 3)",
              .x_label = "sequences",
              .y_label = "ms",
              .is_log_x = true,
              .is_log_y = true,
              .series = {}};
  const AnalyticCosts costs =
      unit_costs(*question.model, question.devices, question.assumptions, 1);
  for (const double context : kContexts) {
    ChartSeries series{.name = fmt::format("{:.0f} tokens", context), .points = {}};
    for (const double batch : kBatches) {
      series.points.push_back({batch, 1e3 * costs.attention_s(batch, batch * context)});
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

Chart bandwidth(const Question& question) {
  constexpr double kSlowDown = 0.2;
  const ModelWork& model = *question.model;
  Chart chart{.title = "Bandwidth for a slow-down of a fifth (Fig. 4)",
              .x_label = "sequences",
              .y_label = "GB/s",
              .series = {}};
  const AnalyticCosts costs = unit_costs(model, question.devices, question.assumptions, 1);
  const double token_bytes = (model.q_bytes + model.kv_bytes + model.out_bytes) * model.num_layers;
  for (const double context : kContexts) {
    ChartSeries series{.name = fmt::format("{:.0f} tokens", context), .points = {}};
    for (double batch = 10; batch <= 300; batch += 29) {
      const double step_s = costs.model_s(batch) + costs.attention_s(batch, batch * context);
      series.points.push_back({batch, 1e-9 * token_bytes * batch / (kSlowDown * step_s)});
    }
    chart.series.push_back(std::move(series));
  }
  const double nic = 1e-9 * question.devices.model.network_bytes_per_s;
  chart.series.push_back({.name = "one NIC", .points = {{10, nic}, {300, nic}}, .is_dashed = true});
  return chart;
}

// Both kinds of placements, and the homogeneous ones with a slow host, where they were reckoned.
struct Kind {
  const char* name;
  const std::vector<Candidate>* candidates;
};

std::vector<Kind> kinds(const Advice& advice) {
  std::vector<Kind> kinds = {{"offloaded", &advice.search.offloaded},
                             {"homogeneous", &advice.search.colocated}};
  if (!advice.colocated_with_host.empty()) {
    kinds.push_back({"homogeneous, 10 ms of host", &advice.colocated_with_host});
  }
  return kinds;
}

Chart throughput(const Advice& advice) {
  Chart chart{.title = "Throughput against cost (Fig. 11)",
              .x_label = "dollars an hour",
              .y_label = "tokens a second",
              .series = {}};
  for (const Kind& kind : kinds(advice)) {
    ChartSeries series{.name = kind.name, .points = {}, .has_line = false};
    for (const Candidate& candidate : *kind.candidates) {
      series.points.push_back({candidate.dollars_per_h, candidate.step.tokens_per_s});
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

// Of the best placement's devices, one micro-batch.
Chart breakdown(const AdviceRequest& request, const Advice& advice) {
  const Question& question = request.question;
  Chart chart{.title = "A step's parts, one micro-batch (Fig. 12)",
              .x_label = "sequences",
              .y_label = "ms",
              .series = {{.name = "model", .points = {}},
                         {.name = "attention", .points = {}},
                         {.name = "network", .points = {}},
                         {.name = "step (TBT)", .points = {}},
                         {.name = "sum of parts", .points = {}, .is_dashed = true}}};
  if (!advice.offloaded) return chart;
  PlacementSpec placement = advice.offloaded->placement;
  placement.num_micro_batches = 1;
  const auto planned = plan_kv(
      *question.model, placement, question.devices, question.assumptions, question.load->longest);
  if (!planned.ok()) return chart;
  const auto costs = costs_of(question, placement, planned.value().partition);
  const double most = std::max(16.0, advice.offloaded->most_sequences);
  for (int i = 1; i <= 12; ++i) {
    const double batch = most * i / 12;
    const StepEstimate step =
        estimate_step(*costs, placement, question.model->num_layers, batch, question.load->context);
    const double parts[] = {step.model_s,
                            step.attention_s,
                            step.wire_s,
                            step.step_s,
                            step.model_s + step.attention_s + step.wire_s};
    for (size_t k = 0; k < chart.series.size(); ++k) {
      chart.series[k].points.push_back({batch, 1e3 * parts[k]});
    }
  }
  return chart;
}

// Those than which none is cheaper and faster.
ChartSeries front_of(const Kind& kind) {
  std::vector<ChartPoint> points;
  points.reserve(kind.candidates->size());
  for (const Candidate& candidate : *kind.candidates) {
    points.push_back({1e3 * candidate.step.step_s, candidate.dollars_per_mtoken});
  }
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) {
    return a.x != b.x ? a.x < b.x : a.y < b.y;
  });
  ChartSeries front{.name = kind.name, .points = {}};
  for (const ChartPoint& point : points) {
    if (front.points.empty() || point.y < front.points.back().y) front.points.push_back(point);
  }
  return front;
}

Chart pareto(const Advice& advice) {
  Chart chart{.title = "Cost and time between tokens: Pareto front",
              .x_label = "ms between tokens",
              .y_label = "dollars a million tokens",
              .is_log_y = true,
              .series = {}};
  for (const Kind& kind : kinds(advice)) chart.series.push_back(front_of(kind));
  return chart;
}

}  // namespace

std::vector<Chart> plan_charts(const AdviceRequest& request, const Advice& advice) {
  return {throughput(advice),
          pareto(advice),
          breakdown(request, advice),
          bandwidth(request.question),
          model_roofline(request.question),
          attention_roofline(request.question)};
}

}  // namespace lamina::planner
