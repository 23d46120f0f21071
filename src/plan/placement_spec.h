// PlacementSpec: who runs what, as the planner varies it. Plain values.
#pragma once

#include <cstdint>
#include <string>

#include "kv/kv_layout.h"
#include "plan/partition.h"

namespace lamina {

struct PlacementSpec {
  int32_t num_replicas = 1;           // R, of the model
  int32_t tensor_parallel = 1;        // ranks of a replica
  int32_t num_attention_workers = 0;  // b; 0: colocated, attention on the ranks themselves
  int32_t num_micro_batches = 1;      // n
  PartitionKind partition = PartitionKind::kAuto;
  bool overlap = true;  // attention starts before k and v are there
  DType kv_dtype = DType::kBF16;

  [[nodiscard]] int32_t num_model_devices() const { return num_replicas * tensor_parallel; }
  [[nodiscard]] bool is_colocated() const { return num_attention_workers == 0; }
  // "2 x TP 4 + 8 attention, n = 3, head, overlap", "colocated TP 4".
  [[nodiscard]] std::string to_string() const;
};

}  // namespace lamina
