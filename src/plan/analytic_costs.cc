#include "plan/analytic_costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/checked_math.h"
#include "plan/memory_budget.h"

namespace lamina {
namespace {

// Of partial results, which travel as f32 with a log-sum-exp for each head.
constexpr double kPartialElementBytes = 4;
constexpr double kElementBytes = 2;

Status require_shares_of_heads(const ModelWork& model, const PlacementSpec& placement) {
  const int32_t ranks = placement.tensor_parallel;
  if (model.num_kv_heads % ranks == 0 || ranks % model.num_kv_heads == 0) return {};
  return invalid_argument(
      fmt::format("{}: {} KV heads over {} ranks", model.name, model.num_kv_heads, ranks));
}

uint64_t bytes_of(double bytes) {
  return static_cast<uint64_t>(std::max(bytes, 0.0));
}

// What a rank has left beside its share of the weights.
Result<uint64_t> rank_room(const ModelWork& model,
                           const PlacementSpec& placement,
                           const DeviceSpec& device,
                           const Assumptions& assumptions) {
  const uint64_t weights = bytes_of(model.weight_bytes / placement.tensor_parallel);
  const uint64_t room = kv_room_bytes(bytes_of(device.memory_bytes),
                                      assumptions.memory_utilization,
                                      weights + assumptions.reserved_bytes);
  if (room > 0) return room;
  return resource_exhausted(fmt::format("{}: {:.1f} GB of weights on {} x {} leave no room",
                                        model.name,
                                        model.weight_bytes / 1e9,
                                        placement.tensor_parallel,
                                        device.name));
}

std::vector<PartitionWorker> workers_of(int32_t count, const DeviceSpec& device, uint64_t room) {
  std::vector<PartitionWorker> workers;
  workers.reserve(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    workers.push_back({.name = device.name, .budget_bytes = room, .speed = 1.0});
  }
  return workers;
}

}  // namespace

Assumptions Assumptions::paper() {
  Assumptions paper;
  paper.counts_reduced_bytes = false;
  paper.reserved_bytes = 0;
  paper.block_size = 1;
  return paper;
}

Assumptions Assumptions::ideal() const {
  Assumptions ideal = *this;
  ideal.flop_efficiency = ideal.weight_efficiency = ideal.kv_efficiency = 1.0;
  ideal.network_efficiency = 1.0;
  ideal.round_trip_s = ideal.all_reduce_s = ideal.colocated_host_s = 0;
  return ideal;
}

Result<PlannedPartition> plan_kv(const ModelWork& model,
                                 const PlacementSpec& placement,
                                 const PlacementDevices& devices,
                                 const Assumptions& assumptions,
                                 double min_tokens) {
  LAMINA_RETURN_IF_ERROR(require_shares_of_heads(model, placement));
  LAMINA_ASSIGN_OR_RETURN(const uint64_t beside_weights,
                          rank_room(model, placement, devices.model, assumptions));
  KvLayout layout = model.kv_layout(placement.kv_dtype, assumptions.block_size);
  const bool colocated = placement.is_colocated();
  // Ranks beyond the KV heads have copies of them (shard_graph).
  if (colocated) layout.num_kv_heads = std::max(layout.num_kv_heads, placement.tensor_parallel);
  LAMINA_CHECK(colocated || devices.attention.has_value());
  const auto workers = colocated
                           ? workers_of(placement.tensor_parallel, devices.model, beside_weights)
                           : workers_of(placement.num_attention_workers,
                                        *devices.attention,
                                        kv_room_bytes(bytes_of(devices.attention->memory_bytes),
                                                      assumptions.memory_utilization,
                                                      assumptions.reserved_bytes));
  const auto min_blocks = static_cast<int32_t>(
      std::max(1.0, std::ceil(min_tokens / static_cast<double>(assumptions.block_size))));
  return plan_partition({.kind = colocated ? PartitionKind::kHead : placement.partition,
                         .layout = layout,
                         .workers = workers,
                         .min_blocks = min_blocks,
                         .max_blocks = std::numeric_limits<int32_t>::max() / 2});
}

double sequences_that_fit(int32_t num_blocks, int32_t block_size, double context) {
  const double size = block_size;
  const double blocks_of_one = context / size + (size - 1) / (2 * size);
  return std::floor(num_blocks / blocks_of_one);
}

AnalyticCosts::AnalyticCosts(const ModelWork& model,
                             const PlacementSpec& placement,
                             const PlacementDevices& devices,
                             const Assumptions& assumptions,
                             const KvPartition& partition)
    : placement_(placement),
      assumptions_(assumptions),
      flop_per_s_(devices.model.flop_per_s * placement.tensor_parallel *
                  assumptions.flop_efficiency),
      weight_bytes_per_s_(devices.model.memory_bytes_per_s * placement.tensor_parallel *
                          assumptions.weight_efficiency),
      kv_bytes_per_s_(
          (placement.is_colocated() ? devices.model : *devices.attention).memory_bytes_per_s *
          assumptions.kv_efficiency),
      rank_network_(devices.model.network_bytes_per_s * placement.tensor_parallel *
                    assumptions.network_efficiency),
      link_bytes_per_s_(devices.model.link_bytes_per_s),
      model_(model),
      kv_projection_share_(model.kv_projection_share) {
  KvLayout layout = model.kv_layout(placement.kv_dtype, /*block_size=*/1);
  layout.num_kv_heads = partition.num_kv_heads;
  kv_position_bytes_ = static_cast<double>(layout.block_bytes());
  const int32_t num_workers =
      placement.is_colocated() ? placement.tensor_parallel : placement.num_attention_workers;
  for (int32_t i = 0; i < num_workers; ++i) {
    largest_share_ = std::max(largest_share_, partition.share_of(i));
  }
  if (placement.is_colocated()) return;
  worker_network_ = devices.attention->network_bytes_per_s * assumptions.network_efficiency;
  add_traffic(model, partition);
}

// A worker with a part of a head's keys is sent the whole query and answers with a partial result.
void AnalyticCosts::add_traffic(const ModelWork& model, const KvPartition& partition) {
  const double num_heads = partition.num_kv_heads;
  std::vector<Traffic> workers(static_cast<size_t>(placement_.num_attention_workers));
  for (const KvTile& tile : partition.tiles) {
    const double heads = tile.kv_heads.count() / num_heads;
    const double share = static_cast<double>(tile.blocks.count()) / partition.num_blocks;
    const bool is_whole = tile.blocks.count() == partition.num_blocks;
    Traffic& worker = workers[static_cast<size_t>(tile.worker_idx)];
    worker.q += heads * model.q_bytes;
    worker.kv += heads * share * model.kv_bytes;
    worker.out += heads * model.out_bytes * (is_whole ? 1.0 : kPartialElementBytes / kElementBytes);
  }
  for (const Traffic& worker : workers) {
    all_.q += worker.q;
    all_.kv += worker.kv;
    all_.out += worker.out;
    worker_.q = std::max(worker_.q, worker.q);
    worker_.kv = std::max(worker_.kv, worker.kv);
    worker_.out = std::max(worker_.out, worker.out);
  }
}

double AnalyticCosts::model_s(double num_tokens) const {
  const double products_s = std::max(model_.flop_per_token * num_tokens / flop_per_s_,
                                     model_.read_bytes(num_tokens) / weight_bytes_per_s_);
  const double ranks = placement_.tensor_parallel;
  if (ranks == 1) return products_s;
  double reduce_s = assumptions_.all_reduce_s;
  if (assumptions_.counts_reduced_bytes) {
    reduce_s += 2 * (ranks - 1) / ranks * num_tokens * model_.reduced_bytes / link_bytes_per_s_;
  }
  return products_s + 2 * model_.num_layers * reduce_s;
}

double AnalyticCosts::attention_s(double num_tokens, double num_positions) const {
  if (num_tokens <= 0) return 0;
  const double positions = num_tokens * model_.attended_positions(num_positions / num_tokens);
  return kv_position_bytes_ * positions * largest_share_ / kv_bytes_per_s_;
}

double AnalyticCosts::seconds_of(double all_bytes, double worker_bytes) const {
  return std::max(all_bytes / rank_network_, worker_bytes / worker_network_);
}

WireTimes AnalyticCosts::wire(double num_tokens) const {
  if (placement_.is_colocated()) return {};
  const double tokens = num_tokens * model_.num_layers;
  // Every layer runs on another replica than the one before, from two replicas up.
  const double carried = placement_.num_replicas > 1 ? model_.carried_bytes : 0;
  const double busiest = std::max({(all_.q + all_.kv + carried) / rank_network_,
                                   all_.out / rank_network_,
                                   (worker_.q + worker_.kv) / worker_network_,
                                   worker_.out / worker_network_});
  return {.latency_s = model_.num_layers * assumptions_.round_trip_s,
          .q_s = tokens * seconds_of(all_.q, worker_.q),
          .kv_s = tokens * seconds_of(all_.kv, worker_.kv),
          .out_s = tokens * seconds_of(all_.out, worker_.out),
          .carried_s = tokens * carried / rank_network_,
          .busiest_s = tokens * busiest};
}

double AnalyticCosts::host_s() const {
  return placement_.is_colocated() ? assumptions_.colocated_host_s : 0;
}

}  // namespace lamina
