#include "worker/attention_core.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/error.h"

namespace lamina {

static_assert(kNoBlock == kernels::kNoBlock && kNoBlock == wire::kNoBlock);

size_t AttentionCoreConfig::state_bytes() const {
  if (!overlap) return 0;
  const int64_t row_floats = num_heads * kernels::attention_state_dim(kv.value_dim);
  return static_cast<size_t>(max_tokens * row_floats) * sizeof(float);
}

AttentionCore::AttentionCore(const AttentionCoreConfig& config, StreamView stream)
    : config_(config),
      row_size_(round_up(config.max_blocks_per_sequence, kernels::kTableRowUnit)),
      stream_(use_device_of(stream)),
      cache_(config.kv, config.num_blocks, memory_of(stream_.device().kind)),
      order_(kernels::preferred_order({.dtype = config.kv.dtype,
                                       .q_dtype = config.q_dtype,
                                       .block_size = config.kv.block_size,
                                       .key_dim = config.kv.head_dim,
                                       .value_dim = config.kv.latent ? 0 : config.kv.value_dim,
                                       .device = stream_.device()})),
      tables_(config.max_sequences, config.max_blocks_per_sequence, config.num_blocks),
      steps_(static_cast<size_t>(config.num_micro_batches)) {
  const bool is_gpu = stream_.device().kind == DeviceKind::kCuda;
  place_per_head();
  const auto max_sequences = static_cast<size_t>(config.max_sequences);
  for (int32_t i = 0; i < config.num_micro_batches; ++i) {
    Step& step = steps_[static_cast<size_t>(i)];
    if (is_gpu) step.tables = std::make_unique<kernels::StepTables>(table_limits(), stream_);
    step.state = Buffer(memory_of(stream_.device().kind), config.state_bytes());
    step.query_begin.reserve(max_sequences + 1);
    step.context_len.reserve(max_sequences);
    step.slot_mapping.reserve(static_cast<size_t>(config.max_tokens));
    step.block_rows.resize(max_sequences * static_cast<size_t>(row_size_));
    step.table_rows.resize(max_sequences);
  }
}

// Slopes and sinks stay where they are on the CPU; a GPU has copies of its own.
void AttentionCore::place_per_head() {
  size_t count = 0;
  for (const wire::AttentionLayer& layer : config_.layers) {
    count += layer.alibi_slopes.size() + layer.sinks.size();
  }
  if (stream_.device().kind == DeviceKind::kCuda) {
    per_head_memory_ = Buffer(MemoryKind::kCuda, count * sizeof(float));
  }
  size_t used = 0;
  for (const wire::AttentionLayer& layer : config_.layers) {
    PerHead& placed = per_head_.emplace_back();
    placed.alibi_slopes = to_device(layer.alibi_slopes, used);
    placed.sinks = to_device(layer.sinks, used);
  }
  throw_if_error(synchronize(stream_));
}

std::span<const float> AttentionCore::to_device(std::span<const float> values, size_t& used) {
  if (stream_.device().kind == DeviceKind::kCpu || values.empty()) return values;
  float* to = reinterpret_cast<float*>(per_head_memory_.data()) + used;
  used += values.size();
  throw_if_error(copy(to, values.data(), values.size_bytes(), stream_));
  return {to, values.size()};
}

kernels::StepTablesLimits AttentionCore::table_limits() const {
  std::vector<int32_t> windows;
  for (const wire::AttentionLayer& layer : config_.layers) {
    const int32_t window = layer.window.value_or(0);
    if (std::ranges::find(windows, window) == windows.end()) windows.push_back(window);
  }
  return {.max_sequences = config_.max_sequences,
          .max_tokens = config_.max_tokens,
          .max_blocks = row_size_,
          .num_heads = config_.num_heads,
          .num_kv_heads = config_.kv.num_kv_heads,
          .value_dim = config_.kv.value_dim,
          .latent = config_.kv.latent,
          .num_blocks = config_.num_blocks,
          .block_size = config_.kv.block_size,
          .windows = std::move(windows),
          .in_phases = config_.overlap};
}

Status AttentionCore::begin_step(const wire::AttentionPlan& plan) {
  if (plan.micro_batch >= steps_.size()) {
    return invalid_argument(
        fmt::format("plan of micro-batch {} of {}", plan.micro_batch, steps_.size()));
  }
  LAMINA_RETURN_IF_ERROR(update_tables(plan));
  Step& step = steps_[plan.micro_batch];
  LAMINA_RETURN_IF_ERROR(gather_step(plan, step));
  if (step.tables == nullptr) return {};
  return step.tables->update(batch(step), step.changed, step.slot_mapping, stream_);
}

kernels::RaggedBatch AttentionCore::batch(const Step& step) const {
  const size_t table_size = step.context_len.size() * static_cast<size_t>(row_size_);
  return {.query_begin = step.query_begin,
          .context_len = step.context_len,
          .block_tables = std::span(step.block_rows).first(table_size),
          .max_blocks = row_size_,
          .tables = step.tables.get()};
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

Status AttentionCore::gather_step(const wire::AttentionPlan& plan, Step& step) const {
  if (plan.sequences.size() > static_cast<size_t>(config_.max_sequences)) {
    return invalid_argument(fmt::format(
        "plan of {} sequences, limit {}", plan.sequences.size(), config_.max_sequences));
  }
  step.query_begin.assign(1, 0);
  step.context_len.clear();
  step.slot_mapping.clear();
  step.changed.clear();
  step.is_partial = config_.shares_heads;
  step.is_started = false;
  for (const wire::SequenceEntry& entry : plan.sequences) {
    LAMINA_RETURN_IF_ERROR(gather_sequence(entry, step));
  }
  return {};
}

Status AttentionCore::gather_sequence(const wire::SequenceEntry& entry, Step& step) const {
  const int64_t block_size = config_.kv.block_size;
  const std::span<const BlockId> blocks = tables_.blocks(static_cast<int32_t>(entry.slot));
  const int64_t context = int64_t{entry.first_position} + entry.num_tokens;
  if (context > static_cast<int64_t>(blocks.size()) * block_size) {
    return invalid_argument(fmt::format("slot {} needs {} tokens, its {} blocks hold {}",
                                        entry.slot,
                                        context,
                                        blocks.size(),
                                        static_cast<int64_t>(blocks.size()) * block_size));
  }
  const int64_t num_tokens = int64_t{step.query_begin.back()} + entry.num_tokens;
  if (num_tokens > config_.max_tokens) {
    return invalid_argument(fmt::format("plan of more than {} tokens", config_.max_tokens));
  }
  const auto used = blocks.first(static_cast<size_t>(ceil_div(context, block_size)));
  gather_blocks(static_cast<int32_t>(entry.slot), used, step);
  for (int64_t position = entry.first_position; position < context; ++position) {
    const BlockId block = used[static_cast<size_t>(position / block_size)];
    if (block != kNoBlock) {
      step.slot_mapping.push_back(block * block_size + position % block_size);
    } else if (config_.shares_heads) {
      step.slot_mapping.push_back(kernels::kNoSlot);
    }
  }
  step.context_len.push_back(static_cast<int32_t>(context));
  step.query_begin.push_back(static_cast<int32_t>(num_tokens));
  return {};
}

// Of the next sequence of the step.
void AttentionCore::gather_blocks(int32_t slot, std::span<const BlockId> used, Step& step) const {
  const size_t row_idx = step.context_len.size();
  TableRow& row = step.table_rows[row_idx];
  const uint64_t generation = tables_.generation(slot);
  const bool goes_on =
      row.slot == slot && row.generation == generation && row.num_blocks <= used.size();
  if (!goes_on) row = {.slot = slot, .generation = generation};
  const std::span<const BlockId> added = used.subspan(row.num_blocks);
  if (!added.empty()) {
    const size_t begin = row_idx * static_cast<size_t>(row_size_) + row.num_blocks;
    std::ranges::copy(added, step.block_rows.begin() + static_cast<ptrdiff_t>(begin));
    step.changed.push_back({begin, begin + added.size()});
    row.is_partial |= std::ranges::find(added, kNoBlock) != added.end();
    row.num_blocks = used.size();
  }
  step.is_partial |= row.is_partial;
}

int32_t AttentionCore::num_tokens(int32_t micro_batch) const {
  const Step& current = step(micro_batch);
  return current.query_begin.empty() ? 0 : current.query_begin.back();
}

int32_t AttentionCore::num_new_keys(int32_t micro_batch) const {
  return static_cast<int32_t>(step(micro_batch).slot_mapping.size());
}

std::optional<uint64_t> AttentionCore::launch_shape(int32_t micro_batch) const {
  const Step& current = step(micro_batch);
  // Nothing is appended, or less than there are tokens: not what decoding does.
  const bool appends_all = num_new_keys(micro_batch) == num_tokens(micro_batch);
  const bool is_usual = current.is_partial == config_.shares_heads;
  if (current.tables == nullptr || !is_usual || !appends_all) return std::nullopt;
  return current.tables->launch_shape();
}

// The sinks are whoever merges the partials'.
kernels::RaggedAttentionArgs AttentionCore::attention_args(const Step& step,
                                                           int32_t layer_idx,
                                                           TensorView q) const {
  const wire::AttentionLayer& layer = config_.layers[static_cast<size_t>(layer_idx)];
  const PerHead& per_head = per_head_[static_cast<size_t>(layer_idx)];
  return {.q = q,
          .k_cache = cache_.keys(layer_idx),
          .v_cache = cache_.values(layer_idx),
          .out = {},
          .lse = {},
          .batch = batch(step),
          .scale = layer.scale,
          .window = layer.window,
          .soft_cap = layer.soft_cap,
          .alibi_slopes = per_head.alibi_slopes,
          .sinks = step.is_partial ? std::span<const float>() : per_head.sinks,
          .phase = kernels::AttentionPhase::kWhole,
          .state = {},
          .order = order_,
          .k_scales = cache_.key_scales(layer_idx),
          .v_scales = cache_.value_scales(layer_idx)};
}

TensorView AttentionCore::state_view(const Step& step, TensorView q) const {
  LAMINA_CHECK_LE(q.shape[0], config_.max_tokens);
  return {step.state.data(),
          DType::kF32,
          {q.shape[0], config_.num_heads, kernels::attention_state_dim(config_.kv.value_dim)}};
}

Status AttentionCore::start(int32_t micro_batch, int32_t layer_idx, TensorView q) {
  LAMINA_CHECK(config_.overlap);
  return meet_cached_keys(micro_batch, layer_idx, q);
}

Status AttentionCore::meet_cached_keys(int32_t micro_batch, int32_t layer_idx, TensorView q) {
  Step& step = steps_[static_cast<size_t>(micro_batch)];
  kernels::RaggedAttentionArgs args = attention_args(step, layer_idx, q);
  args.phase = kernels::AttentionPhase::kCached;
  args.state = state_view(step, q);
  LAMINA_RETURN_IF_ERROR(kernels::ragged_attention(args, stream_));
  step.is_started = true;
  return {};
}

Status AttentionCore::append(int32_t micro_batch, int32_t layer_idx, TensorView k, TensorView v) {
  const Step& current = step(micro_batch);
  if (current.slot_mapping.empty()) return {};
  return kernels::append_kv({.k = k,
                             .v = config_.kv.latent ? TensorView() : v,
                             .k_cache = cache_.keys(layer_idx),
                             .v_cache = cache_.values(layer_idx),
                             .slot_mapping = current.slot_mapping,
                             .order = order_,
                             .k_scales = cache_.key_scales(layer_idx),
                             .v_scales = cache_.value_scales(layer_idx),
                             .tables = current.tables.get()},
                            stream_);
}

Status AttentionCore::attend(
    int32_t micro_batch, int32_t layer_idx, TensorView q, TensorView out, TensorView lse) {
  Step& current = steps_[static_cast<size_t>(micro_batch)];
  // On a GPU one pass rounds otherwise than two: results would depend on whether q came first.
  if (current.tables != nullptr && config_.overlap && !current.is_started) {
    LAMINA_RETURN_IF_ERROR(meet_cached_keys(micro_batch, layer_idx, q));
  }
  kernels::RaggedAttentionArgs args = attention_args(current, layer_idx, q);
  args.out = out;
  if (current.is_partial) args.lse = lse;
  if (std::exchange(current.is_started, false)) {
    args.phase = kernels::AttentionPhase::kRest;
    args.state = state_view(current, q);
  }
  return kernels::ragged_attention(args, stream_);
}

}  // namespace lamina
