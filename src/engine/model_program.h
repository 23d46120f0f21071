// ModelProgram: a model ready to be run: slices, weights and the sizes that steps are planned for.
// Shared, immutable.
#pragma once

#include <cstdint>
#include <memory>

#include "convert/sliced_model.h"
#include "kv/kv_layout.h"
#include "model/model_config.h"
#include "model/weight_store.h"
#include "scheduler/scheduler.h"
#include "worker/attention_core.h"
#include "worker/model_worker.h"

namespace lamina {

struct ModelProgram {
  SlicedModel sliced;
  std::unique_ptr<WeightStore> weights;
  DType dtype = DType::kBF16;     // of weights, activations and the wire
  DType kv_dtype = DType::kBF16;  // of the KV cache
  int32_t block_size = 16;
  int32_t max_model_len = 0;
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  int32_t max_logits_rows = 0;

  // Head counts of the model, from its first attention operator. All layers agree (checked when
  // slices are shared out).
  [[nodiscard]] const AttentionAttrs& attention() const { return sliced.attentions.front().attrs; }
  [[nodiscard]] int32_t max_blocks_per_sequence() const;
  // KV layout of a worker that owns `num_kv_heads` heads.
  [[nodiscard]] KvLayout kv_layout(int32_t num_kv_heads) const;
  // Configuration of a worker that owns `num_kv_heads` heads and `num_blocks` blocks.
  [[nodiscard]] AttentionCoreConfig attention_core(int32_t num_kv_heads, int32_t num_blocks) const;
  [[nodiscard]] SchedulerConfig scheduler(int32_t num_blocks) const;
  [[nodiscard]] StepLimits step_limits() const;
};

// No pool needs more blocks than all sequences at full length.
int32_t most_useful_blocks(const ModelProgram& program);

}  // namespace lamina
