// The parts of a decoding step, each alone, by the code that serves: all slices of a model with
// sampling but without attention, and an attention worker's layers without its network. On a CPU
// calls return when their work is done, on a GPU they enqueue it. Both are confined to one thread,
// which they take for the stream's.
#pragma once

#include <vector>

#include "device/buffer.h"
#include "kernels/sample.h"
#include "planner/profile/meter.h"
#include "planner/profile/profile.h"
#include "worker/attention_core.h"
#include "worker/rank_group.h"

namespace lamina::planner {

class SlicePart {
 public:
  // Throws Error, as RankGroup does.
  explicit SlicePart(const MeteredModel& model);

  // All of a step of `rows` sequences, at most the model's limit.
  Status run(int32_t rows);
  // The same bit by bit; sampling waits for all of it.
  Status begin(int32_t rows);
  Status run_slices(int32_t begin, int32_t end);
  Status sample();
  [[nodiscard]] int32_t num_slices() const { return ranks_.num_slices(); }

 private:
  StreamView stream_;
  RankGroup ranks_;
  std::vector<int32_t> ids_;   // of the step
  std::vector<int32_t> rows_;  // its positions, and whose logits are sampled
  std::vector<kernels::SampledToken> sampled_;
};

class AttentionPart {
 public:
  // A worker of the point's heads, of so many layers, all of whose cache is written to. Throws
  // Error.
  AttentionPart(const AttentionPoint& point, int32_t num_layers, StreamView stream);

  // A step, through all layers. On a CPU attention meets the cached keys before k and v are there,
  // as `lamina serve` has it without a word.
  Status run();
  Status run_layer(int32_t layer_idx);
  [[nodiscard]] int32_t num_layers() const { return core_.config().kv.num_layers; }

 private:
  Status write_cache();
  [[nodiscard]] wire::AttentionPlan decoding_plan();
  Status append(int32_t layer_idx, int32_t num_tokens);

  AttentionPoint point_;
  StreamView stream_;
  AttentionCore core_;
  uint64_t step_ = 0;
  Buffer q_;
  Buffer kv_;
  Buffer out_;
};

}  // namespace lamina::planner
