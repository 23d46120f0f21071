#include "planner/paper/paper_numbers.h"

#include <algorithm>

#include "base/error.h"
#include "planner/catalogue/device_catalogue.h"
#include "planner/model_source.h"

namespace lamina::planner {
namespace {

const DeviceCatalogue& catalogue() {
  static const DeviceCatalogue built_in = DeviceCatalogue::built_in();
  return built_in;
}

Candidate best_of_micro_batches(const Question& question, PlacementSpec placement) {
  constexpr int32_t kMost = 3;
  std::optional<Candidate> best;
  for (placement.num_micro_batches = 1; placement.num_micro_batches <= kMost;
       ++placement.num_micro_batches) {
    const Result<Candidate> candidate = evaluate(question, placement);
    if (!candidate.ok()) continue;
    if (!best || candidate.value().step.tokens_per_s > best->step.tokens_per_s) {
      best = candidate.value();
    }
  }
  if (!best) throw Error(StatusCode::kResourceExhausted, "the paper's placement fits no sequence");
  return *best;
}

// A KV cache of any size, for figures that are about times alone.
StepEstimate step_at(const ModelWork& model,
                     const PlacementSpec& placement,
                     double context,
                     double num_sequences) {
  const PlacementDevices devices = paper_devices(placement);
  const Assumptions assumptions = Assumptions::paper();
  const PlannedPartition planned =
      plan_kv(model, placement, devices, assumptions, /*min_tokens=*/1).value_or_throw();
  const AnalyticCosts costs(model, placement, devices, assumptions, planned.partition);
  return estimate_step(costs, placement, model.num_layers, num_sequences, context);
}

}  // namespace

std::vector<Load> paper_loads() {
  return {mean_load("Azure-Conv", 1154.7, 211.1),
          mean_load("Azure-Code", 2047.8, 27.9),
          mean_load("Kimi-Conv", 12035.1, 342.6),
          mean_load("Kimi-TA", 8560.0, 182.1)};
}

std::vector<EqualCostPair> equal_cost_pairs() {
  const auto pair = [](std::string model, int32_t a, int32_t b, int32_t colocated) {
    return EqualCostPair{
        .model = std::move(model),
        .offloaded = {.tensor_parallel = a, .num_attention_workers = b, .overlap = false},
        .colocated = {.tensor_parallel = colocated, .overlap = false}};
  };
  return {pair("llama-33b", 1, 2, 2), pair("llama-65b", 2, 4, 4), pair("llama3-70b", 2, 4, 4)};
}

PlacementDevices paper_devices(const PlacementSpec& placement) {
  PlacementDevices devices{.model = catalogue().priced("h100"), .attention = std::nullopt};
  if (!placement.is_colocated()) devices.attention = catalogue().priced("h20");
  return devices;
}

double paper_dollars_per_h(const PlacementSpec& placement) {
  return placement.num_model_devices() * catalogue().priced("h100").dollars_per_h +
         placement.num_attention_workers * catalogue().priced("h20").dollars_per_h;
}

PairResult compare_pair(const EqualCostPair& pair, const Load& load, double host_s) {
  const ModelWork model = read_model_work(pair.model);
  Question question{.model = &model,
                    .load = &load,
                    .devices = paper_devices(pair.offloaded),
                    .assumptions = Assumptions::paper(),
                    .limit = {}};
  question.assumptions.colocated_host_s = host_s;
  PairResult result;
  result.offloaded = best_of_micro_batches(question, pair.offloaded);
  question.devices = paper_devices(pair.colocated);
  result.colocated = evaluate(question, pair.colocated).value_or_throw();
  return result;
}

double required_bandwidth(const ModelWork& model, double context, double batch, double alpha) {
  const PlacementSpec one_each{.num_attention_workers = 1, .overlap = false};
  // Capacity is ignored: weights of two devices' size on one.
  ModelWork without_weights = model;
  without_weights.weight_bytes = 0;
  const StepEstimate step = step_at(without_weights, one_each, context, batch);
  const double wire_bytes =
      (model.q_bytes + model.kv_bytes + model.out_bytes) * model.num_layers * batch;
  return wire_bytes / (alpha * (step.model_s + step.attention_s));
}

StepEstimate offloaded_step(const EqualCostPair& pair,
                            double context,
                            double num_sequences,
                            bool overlap) {
  PlacementSpec placement = pair.offloaded;
  placement.overlap = overlap;
  return step_at(read_model_work(pair.model), placement, context, num_sequences);
}

double overlap_gain(const EqualCostPair& pair, double context, double batch) {
  const double with_s = offloaded_step(pair, context, batch, true).step_s;
  const double without_s = offloaded_step(pair, context, batch, false).step_s;
  return 1.0 - with_s / without_s;
}

}  // namespace lamina::planner
