// The parts of a decoding step, each alone, by the code that serves: all slices of a model with
// sampling but without attention, and an attention worker's layers without its network. Both are
// confined to one thread, which they take for the stream's.
#pragma once

#include <vector>

#include "device/buffer.h"
#include "planner/profile/meter.h"
#include "planner/profile/profile.h"
#include "worker/attention_core.h"
#include "worker/rank_group.h"

namespace lamina::planner {

class SlicePart {
 public:
  // Throws Error, as RankGroup does.
  explicit SlicePart(const MeteredModel& model);

  // A step of `rows` sequences, at most the model's limit.
  Status run(int32_t rows);

 private:
  StreamView stream_;
  RankGroup ranks_;
};

class AttentionPart {
 public:
  // A worker of the point's heads, of so many layers, all of whose cache is written to. Throws
  // Error.
  AttentionPart(const AttentionPoint& point, int32_t num_layers, StreamView stream);

  // A step, through all layers.
  Status run();

 private:
  Status write_cache();
  [[nodiscard]] wire::AttentionPlan decoding_plan();
  Status append(int32_t layer_idx, int32_t num_tokens);

  AttentionPoint point_;
  AttentionCore core_;
  uint64_t step_ = 0;
  Buffer q_;
  Buffer kv_;
  Buffer out_;
};

}  // namespace lamina::planner
