// Planning a KvPartition: how the KV cache is shared out over the attention workers, in proportion
// to their speed, and how many blocks it has then. Arithmetic only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "kv/kv_layout.h"
#include "kv/kv_partition.h"

namespace lamina {

enum class PartitionKind : uint8_t {
  kAuto,          // by head where whole heads balance, else by head and sequence
  kHead,          // whole KV heads; surplus workers stand by
  kRequest,       // whole sequences; blocks of one overflow to another worker only when one is full
  kSequence,      // every head; ranges of blocks of each sequence
  kHeadSequence,  // heads as far as they go round, those that are left over by ranges of blocks
};
// "auto", "head", "request", "sequence", "head-sequence".
std::string_view partition_name(PartitionKind kind);
std::optional<PartitionKind> parse_partition(std::string_view name);

struct PartitionWorker {
  std::string name;           // for messages
  uint64_t budget_bytes = 0;  // memory it gives to KV
  double speed = 1.0;         // KV bytes per second, or in any other common unit; > 0
};

// Makes measured speeds fit for planning: those within a fifth of the median become the median,
// since measurements on shared machines differ by as much and equal shares are cheapest; so do
// those that were not measured (0).
void even_out_speeds(std::span<PartitionWorker> workers);

struct PartitionRequest {
  PartitionKind kind = PartitionKind::kAuto;
  KvLayout layout;  // of the whole model
  std::span<const PartitionWorker> workers;
  int32_t min_blocks = 0;  // one sequence at its longest
  int32_t max_blocks = 0;  // no use for more
};

struct PlannedPartition {
  PartitionKind kind = PartitionKind::kHead;  // what kAuto chose
  KvPartition partition;
  BlockLanes lanes;  // for the BlockAllocator
};

// The worker with the least room for its share decides how many blocks there are.
// kResourceExhausted, naming that worker, the bytes and the flag to change, if fewer than
// `min_blocks` fit.
Result<PlannedPartition> plan_partition(const PartitionRequest& request);

}  // namespace lamina
