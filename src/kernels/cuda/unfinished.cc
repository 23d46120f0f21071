// Operators that CUDA does not have yet.
#include "kernels/cuda/operators.h"

namespace lamina::kernels::cuda {

Status embedding(TensorView /*table*/,
                 TensorView /*ids*/,
                 TensorView /*out*/,
                 StreamView /*stream*/) {
  return unimplemented("embedding: not on CUDA yet");
}

Status embedding_shard(TensorView /*table*/,
                       int64_t /*first_id*/,
                       TensorView /*ids*/,
                       TensorView /*out*/,
                       StreamView /*stream*/) {
  return unimplemented("embedding_shard: not on CUDA yet");
}

Status gather_rows(TensorView /*x*/,
                   TensorView /*rows*/,
                   TensorView /*out*/,
                   StreamView /*stream*/) {
  return unimplemented("gather_rows: not on CUDA yet");
}

Status concat(TensorView /*a*/, TensorView /*b*/, TensorView /*out*/, StreamView /*stream*/) {
  return unimplemented("concat: not on CUDA yet");
}

Status sum_parts(std::span<const TensorView> /*parts*/, TensorView /*out*/, StreamView /*stream*/) {
  return unimplemented("sum_parts: not on CUDA yet");
}

Status join_columns(std::span<const TensorView> /*parts*/,
                    TensorView /*out*/,
                    StreamView /*stream*/) {
  return unimplemented("join_columns: not on CUDA yet");
}

Status linear(const LinearArgs& /*args*/, StreamView /*stream*/) {
  return unimplemented("linear: not on CUDA yet");
}

Status head_linear(TensorView /*x*/,
                   TensorView /*weight*/,
                   TensorView /*out*/,
                   StreamView /*stream*/) {
  return unimplemented("head_linear: not on CUDA yet");
}

Status route(TensorView /*logits*/,
             TensorView /*bias*/,
             const RouteAttrs& /*attrs*/,
             TensorView /*out*/,
             StreamView /*stream*/) {
  return unimplemented("route: not on CUDA yet");
}

Status experts(const ExpertsArgs& /*args*/, StreamView /*stream*/) {
  return unimplemented("experts: not on CUDA yet");
}

Status merge_partials(const AttentionPartial& /*into*/,
                      const AttentionPartial& /*from*/,
                      StreamView /*stream*/) {
  return unimplemented("merge_partials: not on CUDA yet");
}

}  // namespace lamina::kernels::cuda
