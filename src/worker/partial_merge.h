// PartialMerge: joins what several attention workers computed of the same heads, each over the keys
// it holds, and rounds the whole to the model's dtype once. Confined to one thread.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "device/buffer.h"
#include "device/stream.h"
#include "kv/head_partition.h"
#include "tensor/tensor_view.h"

namespace lamina {

class PartialMerge {
 public:
  // `stream` runs the merging.
  PartialMerge(int64_t max_tokens, int64_t num_heads, int64_t value_dim, StreamView stream);

  // Starts a layer of a step of `num_tokens`: with the sinks, [num_heads] or none, and nothing
  // else.
  void begin(int64_t num_tokens, std::span<const float> sinks);
  // Adds the partial of rows [row, row + N) and query heads `heads`:
  //   out [N, heads, value_dim] f32, lse [N, heads] f32, both contiguous.
  Status add(int64_t row, const HeadRange& heads, const TensorView& out, const TensorView& lse);
  // Rounds rows [row, row + N) of `heads` to `out` [N, heads, value_dim].
  void store(int64_t row, const HeadRange& heads, const TensorView& out) const;

 private:
  int64_t num_heads_;
  int64_t value_dim_;
  StreamView stream_;
  Buffer out_memory_;
  Buffer lse_memory_;
  TensorView out_;  // [T, num_heads, value_dim]
  TensorView lse_;  // [T, num_heads]
};

}  // namespace lamina
