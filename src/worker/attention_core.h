// AttentionCore: one attention worker's state and work without its network: KV blocks of its heads,
// block tables, append and attention, for steps of several micro-batches at a time. AttentionWorker
// drives it from messages, LocalAttention from the model worker's own thread. A simulator derives
// from it to add what attention costs to its own clock. Confined to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
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
  DType q_dtype = DType::kBF16;
  int32_t num_blocks = 0;
  int32_t num_heads = 0;      // query heads of this worker
  int32_t max_sequences = 0;  // slots
  int32_t max_tokens = 0;     // query tokens of a step
  int32_t max_blocks_per_sequence = 0;
  int32_t num_micro_batches = 1;
  // Attention over the cached keys starts when q is there, before k and v are: start() is called,
  // and there is memory for what it leaves behind.
  bool overlap = true;
  // Other workers hold blocks of the same heads, and each is given every token's k and v: a step is
  // a partial whatever blocks it needs, and of its keys those are appended that lie here.
  bool shares_heads = false;
  std::vector<wire::AttentionLayer> layers;

  // Of each micro-batch, between start() and attend(), in memory of the device.
  [[nodiscard]] size_t state_bytes() const;
};

class AttentionCore {
 public:
  // Allocates the KV cache, in memory of the stream's device, where q, k, v and out of the calls
  // lie too. Throws Error kResourceExhausted or kInvalidArgument.
  AttentionCore(const AttentionCoreConfig& config, StreamView stream);
  AttentionCore(const AttentionCore&) = delete;
  AttentionCore& operator=(const AttentionCore&) = delete;
  virtual ~AttentionCore() = default;

  // Applies the plan's changes to the block tables and makes it the current step of its
  // micro-batch. The plan comes from a socket: it is validated wholly. kInvalidArgument; the tables
  // may be partly changed then, and the session is lost.
  Status begin_step(const wire::AttentionPlan& plan);

  // The calls of one layer, in this order. T query tokens; N of them lie in blocks held here, or
  // are T where heads are shared.
  // What attention can do before k and v are there: q meets the cached keys. Optional, with the
  // same result bit for bit: attend() does it otherwise. q [T, Hq, D] of this worker's heads.
  // CHECKs that the configuration has overlap.
  virtual Status start(int32_t micro_batch, int32_t layer_idx, TensorView q);
  // k [N, Hkv, D], v [N, Hkv, Dv]; v is not looked at if the layout is latent.
  virtual Status append(int32_t micro_batch, int32_t layer_idx, TensorView k, TensorView v);
  // out [T, Hq, Dv] in q's dtype or f32; lse [T, Hq] f32 where the step is partial, else not looked
  // at.
  virtual Status attend(
      int32_t micro_batch, int32_t layer_idx, TensorView q, TensorView out, TensorView lse = {});

  [[nodiscard]] const AttentionCoreConfig& config() const { return config_; }
  // T and N of the micro-batch's current step.
  [[nodiscard]] int32_t num_tokens(int32_t micro_batch) const;
  [[nodiscard]] int32_t num_new_keys(int32_t micro_batch) const;
  // Blocks of the step's sequences lie with other workers: out and lse are a partial, without
  // sinks.
  [[nodiscard]] bool is_partial(int32_t micro_batch) const { return step(micro_batch).is_partial; }
  // AttentionPort::launch_shape() of the micro-batch's step.
  [[nodiscard]] std::optional<uint64_t> launch_shape(int32_t micro_batch) const;
  [[nodiscard]] int32_t num_blocks_used() const { return tables_.num_held(); }

 private:
  // What a row of a step's tables was copied from. It stays there for the next step, which mostly
  // has the same sequence there: then what was added since is copied alone.
  struct TableRow {
    int32_t slot = -1;
    uint64_t generation = 0;
    size_t num_blocks = 0;
    bool is_partial = false;  // some of them lie elsewhere
  };
  // A micro-batch's current step, as the operators take it.
  struct Step {
    std::vector<int32_t> query_begin;
    std::vector<int32_t> context_len;
    std::vector<int32_t> block_rows;           // [B, row_size_]
    std::vector<TableRow> table_rows;          // [B]
    std::vector<kernels::TableRange> changed;  // of block_rows, since the step before
    std::vector<int64_t> slot_mapping;         // [N]
    bool is_partial = false;
    bool is_started = false;                      // the layer under way
    Buffer state;                                 // between start() and attend()
    std::unique_ptr<kernels::StepTables> tables;  // on a GPU
  };
  // What a layer's heads have of their own, where the device's operators read it.
  struct PerHead {
    std::span<const float> alibi_slopes;
    std::span<const float> sinks;
  };

  [[nodiscard]] const Step& step(int32_t micro_batch) const {
    return steps_[static_cast<size_t>(micro_batch)];
  }
  Status update_tables(const wire::AttentionPlan& plan);
  Status gather_step(const wire::AttentionPlan& plan, Step& step) const;
  Status gather_sequence(const wire::SequenceEntry& entry, Step& step) const;
  void gather_blocks(int32_t slot, std::span<const BlockId> used, Step& step) const;
  [[nodiscard]] kernels::RaggedBatch batch(const Step& step) const;
  void place_per_head();
  [[nodiscard]] std::span<const float> to_device(std::span<const float> values, size_t& used);
  [[nodiscard]] kernels::StepTablesLimits table_limits() const;
  [[nodiscard]] kernels::RaggedAttentionArgs attention_args(const Step& step,
                                                            int32_t layer_idx,
                                                            TensorView q) const;
  [[nodiscard]] TensorView state_view(const Step& step, TensorView q) const;
  Status meet_cached_keys(int32_t micro_batch, int32_t layer_idx, TensorView q);

  AttentionCoreConfig config_;
  int32_t row_size_;  // of a step's block tables
  StreamView stream_;
  KvCache cache_;
  kernels::KvOrder order_;
  BlockTables tables_;
  std::vector<Step> steps_;        // by micro-batch
  Buffer per_head_memory_;         // on a GPU
  std::vector<PerHead> per_head_;  // by layer
};

}  // namespace lamina
