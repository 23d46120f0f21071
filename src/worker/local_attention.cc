#include "worker/local_attention.h"

namespace lamina {

namespace {

// k and v are there when q is.
AttentionCoreConfig without_overlap(AttentionCoreConfig config) {
  config.overlap = false;
  return config;
}

}  // namespace

LocalAttention::LocalAttention(const AttentionCoreConfig& config, StreamView stream)
    : is_on_gpu_(stream.device().kind == DeviceKind::kCuda),
      core_(without_overlap(config), stream),
      partitioner_({{0, config.num_blocks}}, config.max_sequences, config.kv.block_size),
      queries_(static_cast<size_t>(config.num_micro_batches)) {}

Status LocalAttention::begin_step(int32_t micro_batch,
                                  const StepStart& /*start*/,
                                  const StepPlan& plan) {
  LAMINA_RETURN_IF_ERROR(partitioner_.partition(plan, micro_batch, parts_));
  return core_.begin_step(parts_.front().plan);
}

Status LocalAttention::send_q(int32_t micro_batch, int32_t /*attention_idx*/, TensorView q) {
  queries_[static_cast<size_t>(micro_batch)] = q;
  return {};
}

Status LocalAttention::send_kv(int32_t micro_batch,
                               int32_t attention_idx,
                               TensorView k,
                               TensorView v) {
  return core_.append(micro_batch, attention_idx, k, v);
}

Status LocalAttention::receive(int32_t micro_batch, int32_t attention_idx, TensorView out) {
  return core_.attend(micro_batch, attention_idx, queries_[static_cast<size_t>(micro_batch)], out);
}

Result<bool> LocalAttention::has_output(int32_t /*micro_batch*/, int32_t /*attention_idx*/) {
  return true;  // receive() computes it
}

void LocalAttention::add_awaited(int32_t /*micro_batch*/,
                                 int32_t /*attention_idx*/,
                                 std::vector<AwaitedMessage>& /*awaited*/) const {}

}  // namespace lamina
