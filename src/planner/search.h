// The search: every placement that the devices allow, each with the batch that fits memory and the
// limit on the time between tokens, by the analytic model. Pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "plan/analytic_costs.h"
#include "plan/decode_estimate.h"
#include "planner/load/load.h"

namespace lamina::planner {

struct LatencyLimit {
  double step_s = std::numeric_limits<double>::infinity();  // time between tokens
  // To the first token, of 99 % of the requests: what a replay tells, and no search.
  double first_token_s = std::numeric_limits<double>::infinity();
};

// Costs of a placement other than those of AnalyticCosts: measured ones.
using CostsOf = std::function<std::unique_ptr<StepCosts>(const PlacementSpec& placement,
                                                         const KvPartition& partition)>;
// Whether measurements go so far: a micro-batch of so many sequences of that context.
using Covers = std::function<bool(double num_sequences, double context)>;

// What is asked of one placement.
struct Question {
  const ModelWork* model = nullptr;
  const Load* load = nullptr;
  PlacementDevices devices;  // of colocated placements the first alone
  Assumptions assumptions;
  LatencyLimit limit;
  CostsOf measured;  // empty: by the devices' figures
  Covers covers;     // of what was measured; empty: everything
};

struct Candidate {
  PlacementSpec placement;
  double dollars_per_h = 0;
  int32_t num_blocks = 0;     // of KV, as the allocator has them
  double most_sequences = 0;  // that memory holds
  double num_sequences = 0;   // that run: fewer where the time between tokens is limited
  StepEstimate step;          // with them
  StepEstimate bound;         // the same at efficiencies of 1 and without latencies
  double dollars_per_mtoken = 0;
  bool is_extrapolated = false;  // its step lies beyond what was measured
  // Of as many copies as the load needs, 1 where it has no rate: what placements compete by.
  double num_copies = 1;
  double fleet_dollars_per_mtoken = 0;

  [[nodiscard]] double tokens_per_dollar() const { return 1e6 / dollars_per_mtoken; }
};

// kResourceExhausted where not one sequence fits, and kOutOfRange where the limit is not kept even
// by one; else as plan_kv().
Result<Candidate> evaluate(const Question& question, const PlacementSpec& placement);

// `question.model` outlives the result.
std::unique_ptr<StepCosts> costs_of(const Question& question,
                                    const PlacementSpec& placement,
                                    const KvPartition& partition);

struct SearchSpace {
  int32_t max_model_devices = 16;
  int32_t max_attention_devices = 16;
  int32_t max_colocated_devices = 16;
  std::vector<PartitionKind> partitions = {PartitionKind::kHead, PartitionKind::kHeadSequence};
  std::vector<bool> overlaps = {true, false};
  std::vector<DType> kv_dtypes = {DType::kBF16};
  int32_t max_tensor_parallel = 64;     // 1 for measured costs: a profile has no ranks
  int32_t max_replicas = 8;             // as --replicas allows
  int32_t max_extra_micro_batches = 2;  // beyond the replicas, as --micro-batches allows
};

struct SearchResult {
  std::vector<Candidate> offloaded;  // the best of each (model devices, attention devices), by cost
  std::vector<Candidate> colocated;  // of each tensor-parallel degree
  int64_t num_placements = 0;        // that were tried
  int64_t num_feasible = 0;

  // The most tokens per dollar; null where there is none.
  [[nodiscard]] const Candidate* best_offloaded() const;
  [[nodiscard]] const Candidate* best_colocated() const;
};

// The homogeneous placements alone, on the first of the question's devices, by cost.
std::vector<Candidate> search_colocated(const Question& question, const SearchSpace& space);

// Whether `a` is the better placement for its load.
bool is_better(const Candidate& a, const Candidate& b);

// `colocated` is the device of the homogeneous placements.
SearchResult search(const Question& question,
                    const DeviceSpec& colocated,
                    const SearchSpace& space);

}  // namespace lamina::planner
