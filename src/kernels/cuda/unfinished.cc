// Operators that CUDA does not have yet.
#include "kernels/cuda/operators.h"

namespace lamina::kernels::cuda {

Status norm(const NormArgs& /*args*/, StreamView /*stream*/) {
  return unimplemented("norm: not on CUDA yet");
}

Status add_norm(const AddNormArgs& /*args*/, StreamView /*stream*/) {
  return unimplemented("add_norm: not on CUDA yet");
}

Status add(TensorView /*a*/, TensorView /*b*/, TensorView /*out*/, StreamView /*stream*/) {
  return unimplemented("add: not on CUDA yet");
}

Status mul(TensorView /*a*/, TensorView /*b*/, TensorView /*out*/, StreamView /*stream*/) {
  return unimplemented("mul: not on CUDA yet");
}

Status scale(TensorView /*x*/, float /*factor*/, TensorView /*out*/, StreamView /*stream*/) {
  return unimplemented("scale: not on CUDA yet");
}

Status soft_cap(TensorView /*x*/, float /*cap*/, TensorView /*out*/, StreamView /*stream*/) {
  return unimplemented("soft_cap: not on CUDA yet");
}

Status activation(TensorView /*x*/,
                  Activation /*kind*/,
                  TensorView /*out*/,
                  StreamView /*stream*/) {
  return unimplemented("activation: not on CUDA yet");
}

Status gated_activation(TensorView /*x*/,
                        const GatedActivationAttrs& /*attrs*/,
                        TensorView /*out*/,
                        StreamView /*stream*/) {
  return unimplemented("gated_activation: not on CUDA yet");
}

Status rope_table(TensorView /*positions*/,
                  std::span<const float> /*inv_freq*/,
                  float /*magnitude*/,
                  TensorView /*out*/,
                  StreamView /*stream*/) {
  return unimplemented("rope_table: not on CUDA yet");
}

Status rope(TensorView /*x*/,
            TensorView /*table*/,
            bool /*interleaved*/,
            TensorView /*out*/,
            StreamView /*stream*/) {
  return unimplemented("rope: not on CUDA yet");
}

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

Status merge_partials(const AttentionPartial& /*into*/,
                      const AttentionPartial& /*from*/,
                      StreamView /*stream*/) {
  return unimplemented("merge_partials: not on CUDA yet");
}

}  // namespace lamina::kernels::cuda
