// Costs of a step from devices' figures: the bounds of PAPER 13 with efficiencies, and what a
// partition of the KV cache makes of heads and bytes. Arithmetic only.
#pragma once

#include <cstdint>
#include <optional>

#include "plan/device_spec.h"
#include "plan/model_work.h"
#include "plan/placement_spec.h"
#include "plan/step_costs.h"

namespace lamina {

// What is reckoned with where nothing was measured. The defaults are what PAPER 9.1 takes, and its
// measured network.
struct Assumptions {
  double flop_efficiency = 0.7;       // products, of the peak
  double weight_efficiency = 0.8;     // reading weights, of the memory's bandwidth
  double kv_efficiency = 0.8;         // reading KV
  double network_efficiency = 0.914;  // of a NIC's line rate
  double round_trip_s = 33e-6;        // of an empty message between pools, once a layer
  double all_reduce_s = 15e-6;        // of an empty one, twice a layer
  bool counts_reduced_bytes = true;   // and over the link the ring's bytes
  double colocated_host_s = 0;        // lost by each step of a colocated placement
  double memory_utilization = 0.9;
  uint64_t reserved_bytes = uint64_t{2} << 30;  // of a device's memory, beside weights and KV
  int32_t block_size = 16;                      // tokens

  // PAPER 9.1's own: batches are memory over bytes of tokens, nothing is kept in reserve.
  static Assumptions paper();
  // Of these, what no implementation can beat: efficiencies of 1, no latencies.
  [[nodiscard]] Assumptions ideal() const;
};

// The devices of a placement: those that hold the model, and those that hold the KV cache (none
// where it is colocated).
struct PlacementDevices {
  DeviceSpec model;
  std::optional<DeviceSpec> attention;
};

// What the KV cache of a placement holds, by plan_partition() over the devices' memory.
// kResourceExhausted if the weights do not fit, or nothing is left for a sequence of `min_tokens`;
// kInvalidArgument if heads cannot be shared out over the ranks.
Result<PlannedPartition> plan_kv(const ModelWork& model,
                                 const PlacementSpec& placement,
                                 const PlacementDevices& devices,
                                 const Assumptions& assumptions,
                                 double min_tokens);

// Sequences of a mean context that the blocks have room for: whole ones, of which the last block is
// half full on average.
double sequences_that_fit(int32_t num_blocks, int32_t block_size, double context);

class AnalyticCosts final : public StepCosts {
 public:
  // `partition` as plan_kv() gave it; `model` outlives this.
  AnalyticCosts(const ModelWork& model,
                const PlacementSpec& placement,
                const PlacementDevices& devices,
                const Assumptions& assumptions,
                const KvPartition& partition);

  [[nodiscard]] double model_s(double num_tokens) const override;
  [[nodiscard]] double attention_s(double num_tokens, double num_positions) const override;
  [[nodiscard]] WireTimes wire(double num_tokens) const override;
  [[nodiscard]] double host_s() const override;
  [[nodiscard]] double kv_projection_share() const override { return kv_projection_share_; }

 private:
  // Bytes of one token and layer.
  struct Traffic {
    double q = 0;
    double kv = 0;
    double out = 0;
  };
  void add_traffic(const ModelWork& model, const KvPartition& partition);
  // One direction: over the NICs of all ranks, and over that of the worker with most of it.
  [[nodiscard]] double seconds_of(double all_bytes, double worker_bytes) const;

  PlacementSpec placement_;
  Assumptions assumptions_;
  double flop_per_s_;          // of a replica
  double weight_bytes_per_s_;  // of a replica
  double kv_bytes_per_s_;      // of a worker
  double rank_network_;        // bytes a second of all ranks of a replica
  double worker_network_ = 0;
  double link_bytes_per_s_;
  const ModelWork& model_;
  double kv_position_bytes_;  // over all layers and heads
  double largest_share_ = 0;  // of the KV cache, on one worker
  Traffic all_;
  Traffic worker_;  // the most of each that one worker has
  double kv_projection_share_;
};

}  // namespace lamina
