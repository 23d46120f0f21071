// Linked instead of kernels/cuda/ where the build has no CUDA.
#include "base/error.h"
#include "kernels/checks.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels::cuda {

Status norm(const NormArgs& /*args*/, StreamView /*stream*/) {
  return no_cuda("norm");
}

Status add_norm(const AddNormArgs& /*args*/, StreamView /*stream*/) {
  return no_cuda("add_norm");
}

Status add(TensorView /*a*/, TensorView /*b*/, TensorView /*out*/, StreamView /*stream*/) {
  return no_cuda("add");
}

Status mul(TensorView /*a*/, TensorView /*b*/, TensorView /*out*/, StreamView /*stream*/) {
  return no_cuda("mul");
}

Status scale(TensorView /*x*/, float /*factor*/, TensorView /*out*/, StreamView /*stream*/) {
  return no_cuda("scale");
}

Status soft_cap(TensorView /*x*/, float /*cap*/, TensorView /*out*/, StreamView /*stream*/) {
  return no_cuda("soft_cap");
}

Status activation(TensorView /*x*/,
                  Activation /*kind*/,
                  TensorView /*out*/,
                  StreamView /*stream*/) {
  return no_cuda("activation");
}

Status gated_activation(TensorView /*x*/,
                        const GatedActivationAttrs& /*attrs*/,
                        TensorView /*out*/,
                        StreamView /*stream*/) {
  return no_cuda("gated_activation");
}

Status rope_table(TensorView /*positions*/,
                  std::span<const float> /*inv_freq*/,
                  float /*magnitude*/,
                  TensorView /*out*/,
                  StreamView /*stream*/) {
  return no_cuda("rope_table");
}

Status rope(TensorView /*x*/,
            TensorView /*table*/,
            bool /*interleaved*/,
            TensorView /*out*/,
            StreamView /*stream*/) {
  return no_cuda("rope");
}

Status embedding(TensorView /*table*/,
                 TensorView /*ids*/,
                 TensorView /*out*/,
                 StreamView /*stream*/) {
  return no_cuda("embedding");
}

Status embedding_shard(TensorView /*table*/,
                       int64_t /*first_id*/,
                       TensorView /*ids*/,
                       TensorView /*out*/,
                       StreamView /*stream*/) {
  return no_cuda("embedding_shard");
}

Status gather_rows(TensorView /*x*/,
                   TensorView /*rows*/,
                   TensorView /*out*/,
                   StreamView /*stream*/) {
  return no_cuda("gather_rows");
}

Status concat(TensorView /*a*/, TensorView /*b*/, TensorView /*out*/, StreamView /*stream*/) {
  return no_cuda("concat");
}

Status sum_parts(std::span<const TensorView> /*parts*/, TensorView /*out*/, StreamView /*stream*/) {
  return no_cuda("sum_parts");
}

Status join_columns(std::span<const TensorView> /*parts*/,
                    TensorView /*out*/,
                    StreamView /*stream*/) {
  return no_cuda("join_columns");
}

Status linear(const LinearArgs& /*args*/, StreamView /*stream*/) {
  return no_cuda("linear");
}

Status head_linear(TensorView /*x*/,
                   TensorView /*weight*/,
                   TensorView /*out*/,
                   StreamView /*stream*/) {
  return no_cuda("head_linear");
}

Status route(TensorView /*logits*/,
             TensorView /*bias*/,
             const RouteAttrs& /*attrs*/,
             TensorView /*out*/,
             StreamView /*stream*/) {
  return no_cuda("route");
}

Status experts(const ExpertsArgs& /*args*/, StreamView /*stream*/) {
  return no_cuda("experts");
}

Status sample(TensorView /*logits*/,
              std::span<const SampleRow> /*rows*/,
              std::span<SampledToken> /*out*/,
              StreamView /*stream*/) {
  return no_cuda("sample");
}

Status log_probabilities(TensorView /*logits*/,
                         std::span<const int32_t> /*targets*/,
                         int32_t /*num_top*/,
                         std::span<SampledToken> /*out*/,
                         StreamView /*stream*/) {
  return no_cuda("log_probabilities");
}

Status merge_partials(const AttentionPartial& /*into*/,
                      const AttentionPartial& /*from*/,
                      StreamView /*stream*/) {
  return no_cuda("merge_partials");
}

bool reads_swizzled(const KvShape& /*shape*/) {
  return false;
}

Status append_kv(const AppendKvArgs& /*args*/, StreamView /*stream*/) {
  return no_cuda("append_kv");
}

Status ragged_attention(const RaggedAttentionArgs& /*args*/, StreamView /*stream*/) {
  return no_cuda("ragged_attention");
}

}  // namespace lamina::kernels::cuda

namespace lamina::kernels {

struct StepTables::Impl {};

StepTables::StepTables(const StepTablesLimits& /*limits*/, StreamView /*stream*/) {
  throw Error(no_cuda("step tables"));
}

StepTables::~StepTables() = default;

Status StepTables::update(const RaggedBatch& /*batch*/,
                          std::span<const int64_t> /*slot_mapping*/,
                          StreamView /*stream*/) {
  return no_cuda("step tables");
}

Status StepTables::update(const RaggedBatch& /*batch*/,
                          std::span<const TableRange> /*changed*/,
                          std::span<const int64_t> /*slot_mapping*/,
                          StreamView /*stream*/) {
  return no_cuda("step tables");
}

std::optional<uint64_t> StepTables::launch_shape() const {
  return std::nullopt;
}

size_t StepTables::device_bytes() const {
  return 0;
}

}  // namespace lamina::kernels
