// Advice: what `lamina plan` answers: the placement with the most tokens per dollar beside the best
// homogeneous one, how the gain depends on what is assumed, where it turns into a loss, and what a
// replay of the load says of both. Never a gain without these. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "planner/search.h"
#include "simulate/trace_replay.h"

namespace lamina::planner {

// Tokens per dollar of the chosen placement over those of the homogeneous one, both as they stand,
// under other assumptions.
struct GainCase {
  std::string name;
  double gain = 0;
};

// The best of either kind at another length of context.
struct ContextCase {
  double context = 0;
  double offloaded_mtoken_dollars = 0;  // 0: no placement
  double colocated_mtoken_dollars = 0;

  [[nodiscard]] double gain() const {
    return offloaded_mtoken_dollars > 0 ? colocated_mtoken_dollars / offloaded_mtoken_dollars : 0;
  }
};

struct Advice {
  SearchResult search;
  std::optional<Candidate> offloaded;  // the best; nothing where none fits
  std::optional<Candidate> colocated;
  std::vector<GainCase> gains;        // the first is that of the assumptions themselves
  std::vector<ContextCase> contexts;  // losing ones among them
  std::optional<simulate::ReplayResult> offloaded_replay;
  std::optional<simulate::ReplayResult> colocated_replay;
};

struct AdviceRequest {
  Question question;  // outlives the call; its devices are those of offloaded placements
  DeviceSpec colocated_device;
  SearchSpace space;
  bool wants_replay = false;
  simulate::Prefill prefill = simulate::Prefill::kElsewhere;
};

// Throws Error: kResourceExhausted if no placement of either kind fits; what replay() returns.
Advice advise(const AdviceRequest& request);

// A candidate's placement under its load's requests, at the rate of one of so many copies.
// kInvalidArgument where the load has none.
Result<simulate::ReplayResult> replay_candidate(const Question& question,
                                                const PlacementSpec& placement,
                                                double num_copies,
                                                simulate::Prefill prefill);

}  // namespace lamina::planner
