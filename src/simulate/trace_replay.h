// Replay of a load on a virtual clock: the real Scheduler over the real blocks decides who runs
// when; what a step takes comes from StepCosts. Tokens are dummies of the recorded lengths. Says
// what the analytic model cannot: batches of uneven sequences that come and go, queues,
// percentiles.
//
// Steps under way share the pools: each makes progress at one pace, a layer of each after the
// other, as rotation lets them:
//   1 / max(what it takes alone, sum of T_a, sum of T_m / R, sum of the busiest NIC's time)
// over all that are under way, so that no pool is ever busy more than all the time.
// Confined to one thread; the same input gives the same output.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "plan/placement_spec.h"
#include "plan/step_costs.h"
#include "scheduler/scheduler.h"

namespace lamina::simulate {

struct ReplayRequest {
  double arrives_s = 0;  // in order
  int32_t num_prompt_tokens = 0;
  int32_t num_generated_tokens = 0;  // at least 1
};

enum class Prefill : uint8_t {
  kElsewhere,  // prefill workers deliver KV (PAPER 8): a prompt costs its first token's step alone
  kShared,     // prompts run in chunks on the model's replicas, between decoding tokens
};

struct ReplayConfig {
  PlacementSpec placement;
  int32_t num_layers = 0;
  BlockLanes blocks;
  int32_t block_size = 16;
  int32_t max_num_seqs = 4096;            // at once
  int32_t max_num_batched_tokens = 8192;  // of a step, where prefill is shared
  Prefill prefill = Prefill::kElsewhere;
};

struct Percentiles {
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
};

struct ReplayResult {
  int64_t num_requests = 0;
  int64_t num_tokens = 0;  // generated
  int64_t num_steps = 0;
  uint64_t num_preemptions = 0;
  double duration_s = 0;    // from the first arrival to the last token
  double arrivals_s = 0;    // to the last arrival
  double tokens_per_s = 0;  // over the duration
  double mean_batch = 0;    // decoding sequences of all micro-batches, over time
  double peak_blocks = 0;   // most of the KV blocks in use, of 1
  Percentiles tbt_s;        // between two tokens of one sequence
  Percentiles ttft_s;       // from arrival to first token
  double model_idle = 0;    // shares of the time in which somebody ran
  double attention_idle = 0;
  double idle = 0;  // nobody ran, of the duration
  // In the second half of the time in which requests came more sequences were waiting than running,
  // in the mean, and more than in the first half: the queue would have grown without end. Times to
  // the first token say nothing then, but throughput is the most there is. Never of a load that
  // comes all at once.
  bool is_overloaded = false;
};

// Steps of `costs`, which is that of the placement. kInvalidArgument where a request is longer than
// all blocks, or they are not in order.
Result<ReplayResult> replay(const ReplayConfig& config,
                            const StepCosts& costs,
                            std::span<const ReplayRequest> requests);

}  // namespace lamina::simulate
