// The paper's own settings (arXiv 2405.01814v2): its devices, models, loads and equal-cost pairs,
// and the figures that follow from them by the planner's model. Reports print them beside the
// paper's; tests hold them against PAPER 9.1. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "plan/analytic_costs.h"
#include "planner/load/load.h"
#include "planner/search.h"

namespace lamina::planner {

// Table 4: means of the four traces.
std::vector<Load> paper_loads();

// Table 5: a Lamina placement and the homogeneous one of about its price.
struct EqualCostPair {
  std::string model;
  PlacementSpec offloaded;
  PlacementSpec colocated;
};
std::vector<EqualCostPair> equal_cost_pairs();

// H100 beside H20, or alone.
PlacementDevices paper_devices(const PlacementSpec& placement);
double paper_dollars_per_h(const PlacementSpec& placement);

// Both sides of a pair under a load, with `host_s` lost by each colocated step. The offloaded side
// has the best of 1, 2 or 3 micro-batches of one replica; no overlap, as in PAPER 9.1's ideal
// model.
struct PairResult {
  Candidate offloaded;
  Candidate colocated;

  [[nodiscard]] double batch_ratio() const {
    return offloaded.num_sequences / colocated.num_sequences;
  }
  [[nodiscard]] double throughput_gain() const {
    return offloaded.step.tokens_per_s / colocated.step.tokens_per_s;
  }
  [[nodiscard]] double tokens_per_dollar_gain() const {
    return colocated.dollars_per_mtoken / offloaded.dollars_per_mtoken;
  }
};
PairResult compare_pair(const EqualCostPair& pair, const Load& load, double host_s);

// Fig. 4: bytes a second between one H100 and one H20 that slow a step of `batch` sequences of
// `context` tokens down by `alpha` at most, by the paper's formula, capacity ignored.
double required_bandwidth(const ModelWork& model, double context, double batch, double alpha);

// Fig. 14: by how much of a step overlap inside a layer shortens it, at the model's pair with one
// micro-batch of `batch` sequences of `context` tokens.
double overlap_gain(const EqualCostPair& pair, double context, double batch);

// Costs of a pair's offloaded side at `num_micro_batches`; what Fig. 12 is drawn from.
StepEstimate offloaded_step(const EqualCostPair& pair,
                            double context,
                            double num_sequences,
                            bool overlap);

}  // namespace lamina::planner
