// What micro-batches over replicas can reach (PAPER 7 and 13), and how many of them to keep in
// flight. Times are seconds of one layer of one micro-batch. Arithmetic only.
#pragma once

#include <cstdint>

#include "plan/rotation.h"

namespace lamina {

struct LayerTimes {
  double model_s = 0;      // t_m: a slice
  double lead_s = 0;       // of it, until q leaves
  double attention_s = 0;  // t_a: the slowest worker's attention
  double rest_s = 0;       // of it, after k and v are there: all of it without overlap
  double wire_s = 0;       // t_n: both ways
  double kv_wire_s = 0;    // of it, k and v's, where attention does not wait for them
};

// The least time between two layers of a micro-batch:
//   max(n t_a, n t_m / R, t_m + t_a + t_n),
// where the sum is less by what overlap hides: attention begins when q comes, and ends when k and v
// have come too. The network, as a third pool, is the caller's to add.
double layer_period_s(const Rotation& rotation, const LayerTimes& times);

// How the times depend on how the running sequences are cut into micro-batches, as measured.
struct LayerCosts {
  double slice_base_s = 0;       // of a slice, whatever its batch: reading the weights
  double slice_per_token_s = 0;  // and for each token of it
  double attention_s = 0;        // of all running sequences together
  double rest_s = 0;             // of it, after k and v
  double lead_share = 0;         // of a slice, until q leaves
  double wire_s = 0;             // both ways, for one micro-batch
};

LayerTimes layer_times(const LayerCosts& costs, int32_t num_tokens, int32_t num_micro_batches);

// The number of micro-batches, at most `most`, that gives `num_tokens` decoding sequences the most
// tokens a second; the fewest of those that are within a few percent: each brings its own overhead.
int32_t choose_micro_batches(const LayerCosts& costs,
                             int32_t num_tokens,
                             int32_t num_replicas,
                             int32_t most);

}  // namespace lamina
