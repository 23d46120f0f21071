// The ideal pipeline: micro-batches of one decoding sequence each, with constant times and nothing
// that goes wrong, and what its history says: how busy both pools were, how long a layer took, and
// who ran what when, beside the bound of rotational staggered pipelining. Pure functions.
#pragma once

#include <string>

#include "simulate/simulation.h"

namespace lamina::simulate {

struct IdealPipeline {
  Rotation rotation;
  Duration slice{};        // t_m
  Duration attention{};    // t_a
  Duration network{};      // t_n: of a layer, or of the engine, there and back; at least 2 ns
  Duration last_slice{};   // t_l: at the end of a step, sampling included
  Duration engine_step{};  // t_e: planning of a step
  int32_t num_layers = 1;
  int32_t num_steps = 1;
  Duration stagger{};  // from the arrival of one micro-batch's sequence to the next one's
};

Scenario ideal_scenario(const IdealPipeline& pipeline);

// Least time from one layer of a micro-batch to its next: max(n t_a, n t_m / R, t_m + t_a + t_n).
// Fewer micro-batches than replicas keep no more than n of them busy, but then n t_m / n, too, is
// less than the sum.
Duration layer_bound(const IdealPipeline& pipeline);
// Least time from one step of a micro-batch of L layers to its next, the most of what it takes
//   the attention pool  n L t_a
//   the replicas        n (L t_m + t_l) / R
//   the engine          n t_e
//   the micro-batch     L (t_m + t_a + t_n) + t_l + t_n + t_e
// by itself: after its layers comes the seam, that is the last slice, its result's way to the
// engine, the plan of the next step and that one's way to the replica. In the schedule without a
// bubble nothing is left to hide a seam behind: it costs at least t_l + t_n + t_e
// in each step.
Duration step_bound(const IdealPipeline& pipeline);
// The mean of it over all micro-batches, between two slices as counted by Work::slice.
double layer_time_ns(const Outcome& outcome, int64_t from_slice, int64_t to_slice);

struct BusyShares {
  double replicas = 0;
  double attention = 0;
};
// From the moment at which every micro-batch has begun its slice `from_slice` until the first has
// begun `to_slice`.
BusyShares busy_shares(const Outcome& outcome,
                       const IdealPipeline& pipeline,
                       int64_t from_slice,
                       int64_t to_slice);

// Who runs what in the middle of each unit: "j.k" is slice k of micro-batch j.
std::string schedule_table(const Outcome& outcome,
                           const IdealPipeline& pipeline,
                           Duration unit,
                           int32_t num_units);

}  // namespace lamina::simulate
