// AttentionCore: one attention worker's state and work without its network: KV blocks of its heads,
// block tables, append and attention. AttentionWorker drives it from messages, LocalAttention from
// the model worker's own thread. Confined to one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "device/stream.h"
#include "kernels/attention.h"
#include "kv/block_table.h"
#include "kv/kv_cache.h"
#include "wire/attention_layer.h"
#include "wire/messages.h"

namespace lamina {

struct AttentionCoreConfig {
  KvLayout kv;  // num_kv_heads: of this worker
  int32_t num_blocks = 0;
  int32_t num_heads = 0;      // query heads of this worker
  int32_t max_sequences = 0;  // slots
  int32_t max_tokens = 0;     // query tokens of a step
  int32_t max_blocks_per_sequence = 0;
  std::vector<wire::AttentionLayer> layers;
};

class AttentionCore {
 public:
  // Allocates the KV cache. Throws Error kResourceExhausted or kInvalidArgument.
  AttentionCore(const AttentionCoreConfig& config, StreamView stream);

  // Applies the plan's changes to the block tables and makes it the current step. The plan comes
  // from a socket: it is validated wholly. kInvalidArgument; the tables may be partly changed then,
  // and the session is lost.
  Status begin_step(const wire::AttentionPlan& plan);
  // k [T, Hkv, D], v [T, Hkv, Dv] of this worker's heads; v is not looked at if the layout is
  // latent.
  Status append(int32_t layer_idx, TensorView k, TensorView v);
  // q [T, Hq, D] of this worker's heads; out [T, Hq, Dv] in q's dtype or f32.
  Status attend(int32_t layer_idx, TensorView q, TensorView out);

  [[nodiscard]] const AttentionCoreConfig& config() const { return config_; }
  [[nodiscard]] int32_t num_step_tokens() const { return num_step_tokens_; }
  [[nodiscard]] int32_t num_blocks_used() const;

 private:
  Status update_tables(const wire::AttentionPlan& plan);
  Status gather_batch(const wire::AttentionPlan& plan);
  [[nodiscard]] kernels::RaggedBatch batch() const;

  AttentionCoreConfig config_;
  StreamView stream_;
  KvCache cache_;
  BlockTables tables_;
  std::vector<int32_t> query_begin_;
  std::vector<int32_t> context_len_;
  std::vector<int32_t> block_rows_;  // [B, max_blocks_per_sequence]
  int32_t num_step_tokens_ = 0;
};

}  // namespace lamina
