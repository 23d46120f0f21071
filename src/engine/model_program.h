// ModelProgram: a model ready to be run: slices, weights and the sizes that steps are planned for.
// Shared, immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "convert/sliced_model.h"
#include "kv/head_partition.h"
#include "kv/kv_layout.h"
#include "model/model_config.h"
#include "model/weight_store.h"
#include "plan/decode_bounds.h"
#include "plan/rotation.h"
#include "scheduler/scheduler.h"
#include "worker/attention_core.h"
#include "worker/rank_group.h"
#include "worker/step_codec.h"

namespace lamina {

// One tensor-parallel rank's share of the model.
struct ModelShard {
  SlicedModel sliced;
  std::unique_ptr<WeightStore> weights;  // of replica 0, and of all that share its memory
  // Of replicas 1, 2, ... that have memory of their own, as on GPUs; else none.
  std::vector<std::unique_ptr<WeightStore>> copies = {};
};

struct ModelProgram {
  std::vector<ModelShard> ranks;  // at least one
  DType dtype = DType::kBF16;     // of weights, activations and the wire
  DType kv_dtype = DType::kBF16;  // of the KV cache
  int32_t block_size = 16;
  int32_t max_model_len = 0;
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  int32_t max_logits_rows = 0;
  Rotation rotation;

  [[nodiscard]] int32_t num_ranks() const { return static_cast<int32_t>(ranks.size()); }
  // Of one rank, from its first attention operator: all ranks and layers agree on head counts.
  [[nodiscard]] const AttentionAttrs& attention() const {
    return ranks.front().sliced.attentions.front().attrs;
  }
  [[nodiscard]] int32_t num_layers() const {
    return static_cast<int32_t>(ranks.front().sliced.attentions.size());
  }
  // KV heads over all ranks: what attention workers share out. Rank r has the r-th equal part.
  [[nodiscard]] int32_t num_kv_heads() const { return num_ranks() * attention().num_kv_heads; }
  [[nodiscard]] int32_t max_blocks_per_sequence() const;
  // KV layout of a worker that owns `num_kv_heads` heads.
  [[nodiscard]] KvLayout kv_layout(int32_t num_kv_heads) const;
  // Configuration of a worker that owns KV heads [begin, end) of rank `rank` and `num_blocks`
  // blocks.
  // Sinks of rank `rank`'s query heads by layer; none at all in a model without.
  [[nodiscard]] std::vector<std::vector<float>> sinks(int32_t rank) const;
  [[nodiscard]] AttentionCoreConfig attention_core(int32_t rank,
                                                   const HeadRange& kv_heads,
                                                   int32_t num_blocks) const;
  // How products take most weights: of the first that is quantised, else of the first that is
  // packed.
  [[nodiscard]] std::optional<PackedFormat> packed_format() const;
  // What a decoding step has to do, over all ranks.
  [[nodiscard]] DecodeWork decode_work() const;
  // Without blocks: those come with a session.
  [[nodiscard]] SchedulerConfig scheduler() const;
  [[nodiscard]] StepLimits step_limits() const;
  [[nodiscard]] StepCodecLimits step_codec_limits(int32_t num_blocks) const;
  // The ranks' shards for a replica, each on its own stream.
  [[nodiscard]] std::vector<RankModel> rank_models(std::span<const StreamView> streams,
                                                   size_t replica = 0) const;
};

// No pool needs more blocks than all sequences at full length.
int32_t most_useful_blocks(const ModelProgram& program);

}  // namespace lamina
