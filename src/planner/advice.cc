#include "planner/advice.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "base/error.h"

namespace lamina::planner {
namespace {

constexpr double kHostSeconds = 10e-3;  // of each step of a baseline whose host is slow

Question homogeneous(const AdviceRequest& request) {
  Question question = request.question;
  question.devices = {.model = request.colocated_device, .attention = std::nullopt};
  return question;
}

// Other assumptions under which the same two placements are compared.
struct Variation {
  const char* name;
  std::function<void(Assumptions&)> change;
};

std::vector<Variation> variations() {
  return {
      {"as assumed", [](Assumptions&) {}},
      {"colocated steps lose 10 ms more on the host",
       [](Assumptions& a) { a.colocated_host_s += kHostSeconds; }},
      {"ideal devices and network (bounds)", [](Assumptions& a) { a = a.ideal(); }},
      {"network: half the bandwidth, twice the latency",
       [](Assumptions& a) {
         a.network_efficiency /= 2;
         a.round_trip_s *= 2;
       }},
      {"round trips of host-driven RDMA (66.6 us, PAPER 5.4)",
       [](Assumptions& a) { a.round_trip_s = 66.6e-6; }},
      {"attention reads a tenth less", [](Assumptions& a) { a.kv_efficiency *= 0.9; }},
      {"products reach a tenth less",
       [](Assumptions& a) {
         a.flop_efficiency *= 0.9;
         a.weight_efficiency *= 0.9;
       }},
  };
}

std::vector<GainCase> gains_of(const AdviceRequest& request, const Advice& advice) {
  std::vector<GainCase> gains;
  for (const Variation& variation : variations()) {
    // What was measured does not follow other assumptions.
    if (request.question.measured && !gains.empty()) break;
    Question offloaded = request.question;
    Question colocated = homogeneous(request);
    variation.change(offloaded.assumptions);
    variation.change(colocated.assumptions);
    const auto ours = evaluate(offloaded, advice.offloaded->placement);
    const auto theirs = evaluate(colocated, advice.colocated->placement);
    if (!ours.ok() || !theirs.ok()) continue;  // it does not keep the limit any more
    gains.push_back(
        {.name = variation.name,
         .gain = theirs.value().fleet_dollars_per_mtoken / ours.value().fleet_dollars_per_mtoken,
         .when_full = theirs.value().dollars_per_mtoken / ours.value().dollars_per_mtoken});
  }
  return gains;
}

std::vector<ContextCase> contexts_of(const AdviceRequest& request) {
  constexpr std::array kContexts = {512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0};
  std::vector<ContextCase> cases;
  for (const double context : kContexts) {
    const Load load = mean_load("", context, 0);
    Question question = request.question;
    question.load = &load;
    const SearchResult found = search(question, request.colocated_device, request.space);
    const auto dollars = [](const Candidate* best) {
      return best == nullptr ? 0.0 : best->dollars_per_mtoken;
    };
    cases.push_back({context, dollars(found.best_offloaded()), dollars(found.best_colocated())});
  }
  return cases;
}

// Replays the best candidates, at most a few, until one keeps the limit on the time to the first
// token; the best of all stands where none does.
void choose_by_replay(const Question& question,
                      simulate::Prefill prefill,
                      std::vector<Candidate> candidates,
                      std::optional<Candidate>& chosen,
                      std::optional<simulate::ReplayResult>& replay) {
  constexpr size_t kMostReplays = 8;
  std::stable_sort(candidates.begin(), candidates.end(), is_better);
  for (size_t i = 0; i < std::min(candidates.size(), kMostReplays); ++i) {
    const Candidate& candidate = candidates[i];
    const simulate::ReplayResult result =
        replay_candidate(question, candidate.placement, candidate.num_copies, prefill)
            .value_or_throw();
    const bool keeps = keeps_first_token(question.limit, result);
    if (keeps || !replay) {
      chosen = candidate;
      replay = result;
    }
    if (keeps) return;
  }
}

std::optional<Candidate> copy_of(const Candidate* candidate) {
  return candidate == nullptr ? std::nullopt : std::optional(*candidate);
}

}  // namespace

Result<simulate::ReplayResult> replay_candidate(const Question& question,
                                                const PlacementSpec& placement,
                                                double num_copies,
                                                simulate::Prefill prefill) {
  LAMINA_ASSIGN_OR_RETURN(const PlannedPartition planned,
                          plan_kv(*question.model,
                                  placement,
                                  question.devices,
                                  question.assumptions,
                                  question.load->longest));
  const std::unique_ptr<StepCosts> costs = costs_of(question, placement, planned.partition);
  // Copies share the load out; each sees its part of the rate.
  std::vector<simulate::ReplayRequest> requests;
  requests.reserve(question.load->requests.size());
  for (const LoadRequest& request : question.load->requests) {
    requests.push_back(
        {num_copies * request.arrives_s, request.num_prompt_tokens, request.num_generated_tokens});
  }
  return simulate::replay({.placement = placement,
                           .num_layers = question.model->num_layers,
                           .blocks = planned.lanes,
                           .block_size = question.assumptions.block_size,
                           .prefill = prefill},
                          *costs,
                          requests);
}

bool keeps_first_token(const LatencyLimit& limit, const simulate::ReplayResult& replay) {
  if (!std::isfinite(limit.first_token_s)) return true;
  return !replay.is_overloaded && replay.ttft_s.p99 <= limit.first_token_s;
}

Advice advise(const AdviceRequest& request) {
  Advice advice;
  advice.search = search(request.question, request.colocated_device, request.space);
  const Question colocated = homogeneous(request);
  if (!request.question.measured) {
    Question slow_host = colocated;
    slow_host.assumptions.colocated_host_s += kHostSeconds;
    advice.colocated_with_host = search_colocated(slow_host, request.space);
  }
  advice.offloaded = copy_of(advice.search.best_offloaded());
  advice.colocated = copy_of(advice.search.best_colocated());
  if (!advice.offloaded && !advice.colocated) {
    throw Error(StatusCode::kResourceExhausted,
                "no placement fits: more or larger devices, shorter sequences, or a looser limit "
                "on the time between tokens are needed");
  }
  if (request.wants_replay || std::isfinite(request.question.limit.first_token_s)) {
    choose_by_replay(request.question,
                     request.prefill,
                     advice.search.offloaded,
                     advice.offloaded,
                     advice.offloaded_replay);
    choose_by_replay(colocated,
                     request.prefill,
                     advice.search.colocated,
                     advice.colocated,
                     advice.colocated_replay);
  }
  if (advice.offloaded && advice.colocated) advice.gains = gains_of(request, advice);
  advice.contexts = contexts_of(request);
  return advice;
}

}  // namespace lamina::planner
