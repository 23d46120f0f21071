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
// under other assumptions: of the whole copies that the load takes, and of copies that are full.
// Without a rate both are the same.
struct GainCase {
  std::string name;
  double gain = 0;
  double when_full = 0;
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
  // The best; nothing where none fits. With a limit on the time to the first token the best of
  // those whose replay keeps it, or the best of all where none of a few does.
  std::optional<Candidate> offloaded;
  std::optional<Candidate> colocated;
  // The homogeneous ones once more, where each step loses 10 ms on the host (PAPER 9.1); none of
  // what was measured.
  std::vector<Candidate> colocated_with_host;
  std::vector<GainCase> gains;        // the first is that of the assumptions themselves
  std::vector<ContextCase> contexts;  // losing ones among them
  std::optional<simulate::ReplayResult> offloaded_replay;
  std::optional<simulate::ReplayResult> colocated_replay;
};

struct AdviceRequest {
  Question question;  // outlives the call; its devices are those of offloaded placements
  DeviceSpec colocated_device;
  SearchSpace space;
  bool wants_replay = false;  // as a limit on the time to the first token does
  simulate::Prefill prefill = simulate::Prefill::kElsewhere;
};

// Throws Error: kResourceExhausted if no placement of either kind fits; what replay() returns.
Advice advise(const AdviceRequest& request);

// Whether what was replayed keeps the limit on the time to the first token, and is served at all.
bool keeps_first_token(const LatencyLimit& limit, const simulate::ReplayResult& replay);

// A candidate's placement under its load's requests, at the rate of one of so many copies.
// kInvalidArgument where the load has none.
Result<simulate::ReplayResult> replay_candidate(const Question& question,
                                                const PlacementSpec& placement,
                                                double num_copies,
                                                simulate::Prefill prefill);

}  // namespace lamina::planner
