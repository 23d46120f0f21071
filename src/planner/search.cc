#include "planner/search.h"

#include <fmt/format.h>

#include <algorithm>

namespace lamina::planner {

bool is_better(const Candidate& a, const Candidate& b) {
  // Simpler ones come first: they stay where another is better by rounding errors alone.
  constexpr double kWorthwhile = 1 - 1e-9;
  return a.fleet_dollars_per_mtoken < kWorthwhile * b.fleet_dollars_per_mtoken;
}

namespace {

constexpr double kSecondsPerHour = 3600;

double dollars_per_h(const PlacementSpec& placement, const PlacementDevices& devices) {
  double dollars = placement.num_model_devices() * devices.model.dollars_per_h;
  if (!placement.is_colocated()) {
    dollars += placement.num_attention_workers * devices.attention->dollars_per_h;
  }
  return dollars;
}

// What is the same for all micro-batches and overlaps of a placement.
class PlacedModel {
 public:
  PlacedModel(const Question& question,
              const PlacementSpec& placement,
              const PlannedPartition& planned)
      : question_(question),
        placement_(placement),
        num_blocks_(planned.partition.num_blocks),
        costs_(costs_of(question, placement, planned.partition)),
        ideal_(*question.model,
               placement,
               question.devices,
               question.assumptions.ideal(),
               planned.partition) {}

  Result<Candidate> candidate(int32_t num_micro_batches, bool overlap) {
    placement_.num_micro_batches = num_micro_batches;
    placement_.overlap = overlap;
    Candidate candidate{.placement = placement_,
                        .dollars_per_h = dollars_per_h(placement_, question_.devices),
                        .num_blocks = num_blocks_};
    candidate.most_sequences =
        sequences_that_fit(num_blocks_, question_.assumptions.block_size, question_.load->context);
    LAMINA_ASSIGN_OR_RETURN(candidate.num_sequences, sequences_in_time(candidate.most_sequences));
    candidate.step = step_of(*costs_, candidate.num_sequences);
    candidate.bound = step_of(ideal_, candidate.num_sequences);
    candidate.dollars_per_mtoken =
        1e6 * candidate.dollars_per_h / (kSecondsPerHour * candidate.step.tokens_per_s);
    candidate.is_extrapolated =
        question_.covers && !question_.covers(candidate.step.num_tokens, question_.load->context);
    const double demand = question_.load->tokens_per_s();
    candidate.fleet_dollars_per_mtoken = candidate.dollars_per_mtoken;
    if (demand > 0) {
      candidate.num_copies = std::ceil(demand / candidate.step.tokens_per_s);
      candidate.fleet_dollars_per_mtoken =
          1e6 * candidate.num_copies * candidate.dollars_per_h / (kSecondsPerHour * demand);
    }
    return candidate;
  }

 private:
  [[nodiscard]] StepEstimate step_of(const StepCosts& costs, double num_sequences) const {
    return estimate_step(
        costs, placement_, question_.model->num_layers, num_sequences, question_.load->context);
  }

  // The most sequences, at least one of each micro-batch, whose steps keep the limit: a step grows
  // with its batch.
  [[nodiscard]] Result<double> sequences_in_time(double most) const {
    const double least = placement_.num_micro_batches;
    if (most < least) {
      return resource_exhausted(
          fmt::format("room for {} sequences of {:.0f} tokens", most, question_.load->context));
    }
    const double limit_s = question_.limit.step_s;
    if (step_of(*costs_, most).step_s <= limit_s) return most;
    if (step_of(*costs_, least).step_s > limit_s) {
      return Status(StatusCode::kOutOfRange, "no batch keeps the time between tokens");
    }
    double in_time = least;
    double too_many = most;
    while (too_many - in_time > 1) {
      const double middle = std::floor((in_time + too_many) / 2);
      (step_of(*costs_, middle).step_s <= limit_s ? in_time : too_many) = middle;
    }
    return in_time;
  }

  const Question& question_;
  PlacementSpec placement_;
  int32_t num_blocks_;
  std::unique_ptr<StepCosts> costs_;
  AnalyticCosts ideal_;
};

Result<PlannedPartition> planned_kv(const Question& question, const PlacementSpec& placement) {
  return plan_kv(
      *question.model, placement, question.devices, question.assumptions, question.load->longest);
}

class Search {
 public:
  Search(const Question& question, const SearchSpace& space) : question_(question), space_(space) {}

  // The best of so many devices on either side; each way to cut the model's.
  std::optional<Candidate> best_of(int32_t num_model_devices, int32_t num_attention_workers) {
    std::optional<Candidate> best;
    PlacementSpec placement{.num_attention_workers = num_attention_workers};
    for (int32_t ranks = num_model_devices; ranks >= 1; --ranks) {
      if (num_model_devices % ranks != 0 || ranks > space_.max_tensor_parallel) continue;
      placement.tensor_parallel = ranks;
      placement.num_replicas = num_model_devices / ranks;
      if (placement.num_replicas > space_.max_replicas) continue;
      for (const DType dtype : space_.kv_dtypes) {
        placement.kv_dtype = dtype;
        for (const PartitionKind partition : partitions_of(placement)) {
          placement.partition = partition;
          try_all(placement, best);
        }
      }
    }
    return best;
  }

  [[nodiscard]] int64_t num_placements() const { return num_placements_; }
  [[nodiscard]] int64_t num_feasible() const { return num_feasible_; }

 private:
  [[nodiscard]] std::vector<PartitionKind> partitions_of(const PlacementSpec& placement) const {
    return placement.is_colocated() ? std::vector{PartitionKind::kHead} : space_.partitions;
  }

  void try_all(const PlacementSpec& placement, std::optional<Candidate>& best) {
    const bool colocated = placement.is_colocated();
    const int32_t most = colocated ? 1 : placement.num_replicas + space_.max_extra_micro_batches;
    const std::vector<bool> overlaps = colocated ? std::vector<bool>{false} : space_.overlaps;
    num_placements_ += most * static_cast<int64_t>(overlaps.size());
    const Result<PlannedPartition> planned = planned_kv(question_, placement);
    if (!planned.ok()) return;
    PlacedModel model(question_, placement, planned.value());
    for (int32_t n = 1; n <= most; ++n) {
      for (const bool overlap : overlaps) {
        const Result<Candidate> candidate = model.candidate(n, overlap);
        if (!candidate.ok()) continue;
        ++num_feasible_;
        if (!best || is_better(candidate.value(), *best)) best = candidate.value();
      }
    }
  }

  const Question& question_;
  const SearchSpace& space_;
  int64_t num_placements_ = 0;
  int64_t num_feasible_ = 0;
};

const Candidate* best_of(const std::vector<Candidate>& candidates) {
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates) {
    if (best == nullptr || is_better(candidate, *best)) best = &candidate;
  }
  return best;
}

void sort_by_cost(std::vector<Candidate>& candidates) {
  std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.dollars_per_h < b.dollars_per_h;
  });
}

// Copies of the same homogeneous placement give no more per dollar.
SearchSpace one_replica(SearchSpace space) {
  space.max_replicas = 1;
  return space;
}

std::vector<Candidate> candidates_of(Search& baseline, const SearchSpace& space) {
  std::vector<Candidate> candidates;
  for (int32_t ranks = 1; ranks <= space.max_colocated_devices; ++ranks) {
    if (auto best = baseline.best_of(ranks, 0)) candidates.push_back(std::move(*best));
  }
  sort_by_cost(candidates);
  return candidates;
}

}  // namespace

const Candidate* SearchResult::best_offloaded() const {
  return best_of(offloaded);
}

const Candidate* SearchResult::best_colocated() const {
  return best_of(colocated);
}

Result<Candidate> evaluate(const Question& question, const PlacementSpec& placement) {
  LAMINA_ASSIGN_OR_RETURN(const PlannedPartition planned, planned_kv(question, placement));
  return PlacedModel(question, placement, planned)
      .candidate(placement.num_micro_batches, placement.overlap);
}

std::unique_ptr<StepCosts> costs_of(const Question& question,
                                    const PlacementSpec& placement,
                                    const KvPartition& partition) {
  if (question.measured) return question.measured(placement, partition);
  return std::make_unique<AnalyticCosts>(
      *question.model, placement, question.devices, question.assumptions, partition);
}

std::vector<Candidate> search_colocated(const Question& question, const SearchSpace& space) {
  const SearchSpace space_of_one = one_replica(space);
  Search baseline(question, space_of_one);
  return candidates_of(baseline, space);
}

SearchResult search(const Question& question,
                    const DeviceSpec& colocated,
                    const SearchSpace& space) {
  SearchResult result;
  Search offloaded(question, space);
  for (int32_t a = 1; a <= space.max_model_devices; ++a) {
    for (int32_t b = 1; b <= space.max_attention_devices; ++b) {
      if (auto best = offloaded.best_of(a, b)) result.offloaded.push_back(std::move(*best));
    }
  }
  Question homogeneous = question;
  homogeneous.devices = {.model = colocated, .attention = std::nullopt};
  const SearchSpace space_of_one = one_replica(space);
  Search baseline(homogeneous, space_of_one);
  result.colocated = candidates_of(baseline, space);
  sort_by_cost(result.offloaded);
  result.num_placements = offloaded.num_placements() + baseline.num_placements();
  result.num_feasible = offloaded.num_feasible() + baseline.num_feasible();
  return result;
}

}  // namespace lamina::planner
