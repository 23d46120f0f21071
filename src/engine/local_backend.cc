#include "engine/local_backend.h"

#include <array>

#include "base/check.h"
#include "plan/partition.h"

namespace lamina {

LocalBackend::LocalBackend(const ModelProgram& program,
                           uint64_t kv_budget_bytes,
                           std::span<const StreamView> streams,
                           TraceWriter* trace)
    : program_(program),
      kv_budget_bytes_(kv_budget_bytes),
      streams_(streams.begin(), streams.end()),
      replicas_(program, streams, trace) {
  LAMINA_CHECK_EQ(program.rotation.num_replicas, 1);
}

Result<BlockLanes> LocalBackend::open_session(int32_t min_blocks) {
  close();
  const std::array<PartitionWorker, 1> whole = {
      PartitionWorker{.name = "colocated", .budget_bytes = kv_budget_bytes_}};
  LAMINA_ASSIGN_OR_RETURN(const PlannedPartition planned,
                          plan_partition({.kind = PartitionKind::kHead,
                                          .layout = program_.kv_layout(program_.num_kv_heads()),
                                          .workers = whole,
                                          .min_blocks = min_blocks,
                                          .max_blocks = most_useful_blocks(program_)}));
  const HeadRange all_heads = {0, program_.attention().num_kv_heads};
  std::vector<AttentionBackend*> backends;
  try {
    for (int32_t rank = 0; rank < program_.num_ranks(); ++rank) {
      attention_.push_back(std::make_unique<LocalAttention>(
          program_.attention_core(rank, all_heads, planned.partition.num_blocks),
          streams_[static_cast<size_t>(rank)]));
      backends.push_back(attention_.back().get());
    }
  } catch (const Error& error) {
    close();
    return error.status();
  }
  replicas_.open(++epoch_, planned.partition.num_blocks, {backends});
  return planned.lanes;
}

Status LocalBackend::start(int32_t micro_batch, StepPlan plan) {
  return replicas_.start(micro_batch, std::move(plan));
}

Result<std::optional<FinishedStep>> LocalBackend::wait(Deadline deadline) {
  return replicas_.wait(deadline);
}

void LocalBackend::close() {
  replicas_.close();
  attention_.clear();
}

BackendTimes LocalBackend::times() const {
  return to_backend_times(replicas_.times());
}

}  // namespace lamina
