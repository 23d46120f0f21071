#include "worker/attention_core.h"

#include <fmt/format.h>

#include <algorithm>

namespace lamina {

AttentionCore::AttentionCore(const AttentionCoreConfig& config, StreamView stream)
    : config_(config),
      stream_(stream),
      cache_(config.kv, config.num_blocks, MemoryKind::kHost),
      tables_(config.max_sequences, config.max_blocks_per_sequence, config.num_blocks) {
  const auto max_sequences = static_cast<size_t>(config.max_sequences);
  query_begin_.reserve(max_sequences + 1);
  context_len_.reserve(max_sequences);
  block_rows_.resize(max_sequences * static_cast<size_t>(config.max_blocks_per_sequence));
}

Status AttentionCore::begin_step(const wire::AttentionPlan& plan) {
  LAMINA_RETURN_IF_ERROR(update_tables(plan));
  return gather_batch(plan);
}

Status AttentionCore::update_tables(const wire::AttentionPlan& plan) {
  for (const uint32_t slot : plan.released_slots) {
    LAMINA_RETURN_IF_ERROR(tables_.clear(static_cast<int32_t>(slot)));
  }
  // Every cleared table before any append: a block may move from one sequence to another within a
  // plan.
  for (const wire::SequenceEntry& entry : plan.sequences) {
    if (entry.starts != 0) LAMINA_RETURN_IF_ERROR(tables_.clear(static_cast<int32_t>(entry.slot)));
  }
  std::span<const BlockId> new_blocks = plan.new_blocks;
  for (const wire::SequenceEntry& entry : plan.sequences) {
    if (entry.num_new_blocks > new_blocks.size())
      return invalid_argument("plan has fewer new blocks than it says");
    LAMINA_RETURN_IF_ERROR(
        tables_.append(static_cast<int32_t>(entry.slot), new_blocks.first(entry.num_new_blocks)));
    new_blocks = new_blocks.subspan(entry.num_new_blocks);
  }
  return {};
}

Status AttentionCore::gather_batch(const wire::AttentionPlan& plan) {
  if (plan.sequences.size() > static_cast<size_t>(config_.max_sequences)) {
    return invalid_argument(fmt::format(
        "plan of {} sequences, limit {}", plan.sequences.size(), config_.max_sequences));
  }
  query_begin_.assign(1, 0);
  context_len_.clear();
  int64_t num_tokens = 0;
  for (const wire::SequenceEntry& entry : plan.sequences) {
    const std::span<const BlockId> blocks = tables_.blocks(static_cast<int32_t>(entry.slot));
    const int64_t context = int64_t{entry.first_position} + entry.num_tokens;
    if (context > static_cast<int64_t>(blocks.size()) * config_.kv.block_size) {
      return invalid_argument(
          fmt::format("slot {} needs {} tokens, its {} blocks hold {}",
                      entry.slot,
                      context,
                      blocks.size(),
                      static_cast<int64_t>(blocks.size()) * config_.kv.block_size));
    }
    num_tokens += entry.num_tokens;
    if (num_tokens > config_.max_tokens) {
      return invalid_argument(fmt::format("plan of more than {} tokens", config_.max_tokens));
    }
    const size_t row = context_len_.size() * static_cast<size_t>(config_.max_blocks_per_sequence);
    std::copy(blocks.begin(), blocks.end(), block_rows_.begin() + static_cast<ptrdiff_t>(row));
    context_len_.push_back(static_cast<int32_t>(context));
    query_begin_.push_back(static_cast<int32_t>(num_tokens));
  }
  num_step_tokens_ = static_cast<int32_t>(num_tokens);
  return {};
}

int32_t AttentionCore::num_blocks_used() const {
  size_t count = 0;
  for (int32_t slot = 0; slot < tables_.num_slots(); ++slot) count += tables_.blocks(slot).size();
  return static_cast<int32_t>(count);
}

kernels::RaggedBatch AttentionCore::batch() const {
  return {.query_begin = query_begin_,
          .context_len = context_len_,
          .block_tables = std::span(block_rows_)
                              .first(context_len_.size() *
                                     static_cast<size_t>(config_.max_blocks_per_sequence)),
          .max_blocks = config_.max_blocks_per_sequence};
}

Status AttentionCore::append(int32_t layer_idx, TensorView k, TensorView v) {
  return kernels::append_kv({.k = k,
                             .v = config_.kv.latent ? TensorView() : v,
                             .k_cache = cache_.keys(layer_idx),
                             .v_cache = cache_.values(layer_idx),
                             .batch = batch()},
                            stream_);
}

Status AttentionCore::attend(int32_t layer_idx, TensorView q, TensorView out) {
  const wire::AttentionLayer& layer = config_.layers[static_cast<size_t>(layer_idx)];
  return kernels::ragged_attention({.q = q,
                                    .k_cache = cache_.keys(layer_idx),
                                    .v_cache = cache_.values(layer_idx),
                                    .out = out,
                                    .lse = {},
                                    .batch = batch(),
                                    .scale = layer.scale,
                                    .window = layer.window,
                                    .soft_cap = layer.soft_cap,
                                    .alibi_slopes = layer.alibi_slopes,
                                    .sinks = layer.sinks},
                                   stream_);
}

}  // namespace lamina
