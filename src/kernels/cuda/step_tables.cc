#include "kernels/cuda/step_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/checked_math.h"
#include "base/error.h"
#include "device/cuda/error.h"
#include "kernels/attention.h"
#include "kernels/checks.h"
#include "kernels/cuda/attention/new_tokens.h"

namespace lamina::kernels {
namespace {

constexpr size_t kAlignment = 256;
static_assert(kAlignment % kUploadAlignment == 0);
static_assert(kNoSlot == cuda::kNoSlot);

// Gives out places of one buffer.
class Layout {
 public:
  template <typename T>
  void place(StepArray<T>& array, int64_t capacity) {
    array.offset = end_;
    array.capacity = static_cast<int32_t>(std::max<int64_t>(capacity, 1));
    const size_t bytes = static_cast<size_t>(array.capacity) * sizeof(T);
    end_ = (end_ + bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  [[nodiscard]] size_t size() const { return end_; }

 private:
  size_t end_ = 0;
};

void place(Layout& layout, StepItems& items, int64_t max_uncut, int64_t max_partials) {
  layout.place(items.items, max_uncut + max_partials);
  layout.place(items.merges, max_partials / 2);
  layout.place(items.counts, 2);
}

StepTables::Impl::Workspace make_workspace(const StepTablesLimits& limits, int64_t rows) {
  const auto count = static_cast<size_t>(int64_t{limits.max_partials} * limits.num_kv_heads * rows);
  const size_t out_bytes = static_cast<size_t>(limits.value_dim) * sizeof(float);
  return {Buffer(MemoryKind::kCuda, count * out_bytes),
          Buffer(MemoryKind::kCuda, count * sizeof(float))};
}

// Puts what a step has of an array into the staging memory, to be uploaded.
template <typename T>
Status stage(StepTables::Impl& tables, StepArray<T>& array, std::span<const T> values) {
  const std::span<T> staged = tables.staged(array);
  if (values.size() > staged.size()) {
    return internal_error(
        fmt::format("{} entries of a step in a table for {}", values.size(), staged.size()));
  }
  std::ranges::copy(values, staged.begin());
  array.size = static_cast<int32_t>(values.size());
  if (values.empty()) return {};
  const auto begin = static_cast<uint32_t>(array.offset);
  tables.pieces.push_back({begin, begin + static_cast<uint32_t>(values.size_bytes())});
  return {};
}

Status stage(StepTables::Impl& tables,
             StepItems& items,
             const cuda::AttentionSchedule::Width& width) {
  LAMINA_RETURN_IF_ERROR(stage<cuda::AttentionItem>(tables, items.items, width.items));
  LAMINA_RETURN_IF_ERROR(stage<cuda::AttentionItem>(tables, items.merges, width.merges));
  items.merged_rows = 0;
  for (const cuda::AttentionItem& rows : width.merges) {
    items.merged_rows = std::max(items.merged_rows, rows.num_rows);
  }
  const std::array counts = {items.items.size, items.merges.size};
  return stage<int32_t>(tables, items.counts, counts);
}

// Whole units of an upload: neighbours are given as they are.
void stage_block_tables(StepTables::Impl& tables,
                        std::span<const int32_t> entries,
                        std::span<const TableRange> changed) {
  constexpr size_t kUnit = kTableRowUnit;
  static_assert(kUnit * sizeof(int32_t) == kUploadAlignment);
  const StepArray<int32_t>& array = tables.block_tables;
  for (const TableRange& range : changed) {
    const size_t begin = range.begin / kUnit * kUnit;
    const size_t end = std::min(round_up(range.end, kUnit), entries.size());
    std::ranges::copy(entries.subspan(begin, end - begin),
                      tables.staged(array).subspan(begin).begin());
    const auto place = [&](size_t entry) {
      return static_cast<uint32_t>(array.offset + entry * sizeof(int32_t));
    };
    tables.pieces.push_back({place(begin), place(end)});
  }
}

// Padded tokens have none.
Status stage_slots(StepTables::Impl& tables, std::span<const int64_t> slot_mapping) {
  const auto num_slots = static_cast<int64_t>(slot_mapping.size());
  const int64_t padded = std::min<int64_t>(padded_tokens(num_slots), tables.limits.max_tokens);
  std::vector<int64_t>& slots = tables.padded_slots;
  slots.assign(slot_mapping.begin(), slot_mapping.end());
  slots.resize(static_cast<size_t>(padded), kNoSlot);
  return stage<int64_t>(tables, tables.slot_mapping, slots);
}

Status stage_new_tokens(StepTables::Impl& tables, const RaggedBatch& batch) {
  cuda::find_new_tokens(batch, tables.limits.block_size, tables.found_tokens);
  LAMINA_RETURN_IF_ERROR(stage<cuda::NewToken>(tables, tables.new_tokens, tables.found_tokens));
  const std::array count = {tables.new_tokens.size};
  return stage<int32_t>(tables, tables.num_new_tokens, count);
}

// Of each window what its attention does, in the order that suits a GPU.
Status stage_windows(StepTables::Impl& tables, const RaggedBatch& batch) {
  for (StepTables::Impl::Window& window : tables.windows) {
    cuda::make_attention_schedule({.query_begin = batch.query_begin,
                                   .context_len = batch.context_len,
                                   .group = tables.limits.num_heads / tables.limits.num_kv_heads,
                                   .window = window.window,
                                   .max_partials = tables.limits.max_partials,
                                   .latent = tables.limits.latent,
                                   .cached_only = tables.is_split},
                                  tables.schedule);
    LAMINA_RETURN_IF_ERROR(stage(tables, window.narrow, tables.schedule.narrow));
    LAMINA_RETURN_IF_ERROR(stage(tables, window.wide, tables.schedule.wide));
  }
  return {};
}

Status check_slots(const StepTablesLimits& limits, std::span<const int64_t> slot_mapping) {
  const int64_t num_slots = int64_t{limits.num_blocks} * limits.block_size;
  const auto bad = std::ranges::find_if(slot_mapping, [&](int64_t slot) {
    return slot != kNoSlot && (slot < 0 || slot >= num_slots);
  });
  if (bad == slot_mapping.end()) return {};
  return invalid_argument(fmt::format("step tables: slot {} of {}", *bad, num_slots));
}

Status check_limits(const StepTablesLimits& limits,
                    const RaggedBatch& batch,
                    std::span<const int64_t> slot_mapping) {
  if (batch.num_sequences() <= limits.max_sequences && batch.num_tokens() <= limits.max_tokens &&
      batch.max_blocks <= limits.max_blocks &&
      slot_mapping.size() <= static_cast<size_t>(limits.max_tokens)) {
    return {};
  }
  return invalid_argument(fmt::format(
      "step of {} sequences, {} tokens, {} new keys and tables of {} blocks; limits are "
      "{}, {}, {} and {}",
      batch.num_sequences(),
      batch.num_tokens(),
      slot_mapping.size(),
      batch.max_blocks,
      limits.max_sequences,
      limits.max_tokens,
      limits.max_tokens,
      limits.max_blocks));
}

// Rows stay where they are from step to step, and ids are what attention may read.
Status check_changed(const StepTablesLimits& limits,
                     const RaggedBatch& batch,
                     std::span<const TableRange> changed) {
  if (batch.max_blocks != limits.max_blocks || batch.max_blocks % kTableRowUnit != 0) {
    return invalid_argument(fmt::format(
        "step tables: rows of {} entries, not of {}", batch.max_blocks, limits.max_blocks));
  }
  for (const TableRange& range : changed) {
    if (range.begin > range.end || range.end > batch.block_tables.size()) {
      return invalid_argument(fmt::format("step tables: entries {} to {} of {}",
                                          range.begin,
                                          range.end,
                                          batch.block_tables.size()));
    }
    const auto entries = batch.block_tables.subspan(range.begin, range.end - range.begin);
    if (const auto bad = find_bad_block(entries, limits.num_blocks)) {
      return invalid_argument(fmt::format("step tables: block {} of {}", *bad, limits.num_blocks));
    }
  }
  return {};
}

// What was checked.
Status bring(StepTables::Impl& tables,
             const RaggedBatch& batch,
             std::span<const TableRange> changed,
             std::span<const int64_t> slot_mapping,
             StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_limits(tables.limits, batch, slot_mapping));
  LAMINA_RETURN_IF_ERROR(check_slots(tables.limits, slot_mapping));
  tables.turn = 1 - tables.turn;
  const lamina::cuda::Event& copied = tables.copied[tables.turn];
  LAMINA_RETURN_IF_ERROR(
      lamina::cuda::to_status(cudaEventSynchronize(copied.get()), "waiting for a step's tables"));
  tables.max_blocks = batch.max_blocks;
  tables.pieces.clear();
  const std::array num_sequences = {static_cast<int32_t>(batch.num_sequences())};
  LAMINA_RETURN_IF_ERROR(stage<int32_t>(tables, tables.num_sequences, num_sequences));
  LAMINA_RETURN_IF_ERROR(stage(tables, tables.query_begin, batch.query_begin));
  LAMINA_RETURN_IF_ERROR(stage(tables, tables.context_len, batch.context_len));
  stage_block_tables(tables, batch.block_tables, changed);
  LAMINA_RETURN_IF_ERROR(stage_slots(tables, slot_mapping));
  tables.is_split = tables.limits.in_phases && cuda::has_single_tokens(batch.query_begin);
  if (tables.is_split) LAMINA_RETURN_IF_ERROR(stage_new_tokens(tables, batch));
  LAMINA_RETURN_IF_ERROR(stage_windows(tables, batch));
  LAMINA_RETURN_IF_ERROR(upload(
      tables.device_memory.data(), tables.staging[tables.turn].data(), tables.pieces, stream));
  return lamina::cuda::to_status(cudaEventRecord(copied.get(), lamina::cuda::raw(stream)),
                                 "recording a step's tables");
}

}  // namespace

StepTables::Impl::Impl(const StepTablesLimits& wanted, StreamView stream) : limits(wanted) {
  const lamina::cuda::DeviceGuard guard(stream.device());
  Layout layout;
  layout.place(num_sequences, 1);
  layout.place(query_begin, limits.max_sequences + 1);
  layout.place(context_len, limits.max_sequences);
  layout.place(block_tables, int64_t{limits.max_sequences} * limits.max_blocks);
  layout.place(slot_mapping, limits.max_tokens);
  layout.place(progress, 2);
  if (limits.in_phases) {
    layout.place(new_tokens, limits.max_sequences);
    layout.place(num_new_tokens, 1);
    found_tokens.reserve(static_cast<size_t>(limits.max_sequences));
  }
  const int64_t group = limits.num_heads / limits.num_kv_heads;
  const int64_t max_wide =
      ceil_div(limits.max_tokens * group, int64_t{cuda::kWideRows}) + limits.max_sequences;
  for (const int32_t window : limits.windows) {
    Window& each = windows.emplace_back();
    each.window = window;
    place(layout, each.narrow, limits.max_sequences, limits.max_partials);
    place(layout, each.wide, max_wide, limits.max_partials);
  }
  device_memory = Buffer(MemoryKind::kCuda, layout.size());
  for (Buffer& each : staging) each = Buffer(MemoryKind::kPinnedHost, layout.size());
  for (lamina::cuda::Event& each : copied) each = lamina::cuda::make_event();
  schedule.narrow.items.reserve(static_cast<size_t>(limits.max_sequences) +
                                static_cast<size_t>(limits.max_partials));
  schedule.wide.items.reserve(static_cast<size_t>(max_wide) +
                              static_cast<size_t>(limits.max_partials));
  for (cuda::AttentionSchedule::Width* each : {&schedule.narrow, &schedule.wide}) {
    each->merges.reserve(static_cast<size_t>(limits.max_partials) / 2);
  }
  narrow = make_workspace(limits, cuda::kNarrowRows);
  wide = make_workspace(limits, cuda::kWideRows);
}

const StepTables::Impl::Window* StepTables::Impl::find(int32_t window) const {
  const auto found =
      std::ranges::find_if(windows, [&](const Window& each) { return each.window == window; });
  return found == windows.end() ? nullptr : &*found;
}

StepTables::StepTables(const StepTablesLimits& limits, StreamView stream) {
  if (stream.device().kind != DeviceKind::kCuda) {
    throw Error(StatusCode::kUnimplemented, "step tables are for GPUs");
  }
  impl_ = std::make_unique<Impl>(limits, stream);
}

StepTables::~StepTables() = default;

Status StepTables::update(const RaggedBatch& batch,
                          std::span<const int64_t> slot_mapping,
                          StreamView stream) {
  const StepTablesLimits& limits = impl_->limits;
  const TensorView cache(
      nullptr, DType::kBF16, {limits.num_blocks, limits.num_kv_heads, limits.block_size, 1});
  constexpr int64_t kNoWindow = -1;
  LAMINA_RETURN_IF_ERROR(check_batch("step tables", batch, cache, batch.num_tokens(), kNoWindow));
  const TableRange all = {0, batch.block_tables.size()};
  return bring(*impl_, batch, std::span(&all, 1), slot_mapping, stream);
}

Status StepTables::update(const RaggedBatch& batch,
                          std::span<const TableRange> changed,
                          std::span<const int64_t> slot_mapping,
                          StreamView stream) {
  LAMINA_RETURN_IF_ERROR(
      check_bounds("step tables", batch, impl_->limits.block_size, batch.num_tokens()));
  LAMINA_RETURN_IF_ERROR(check_changed(impl_->limits, batch, changed));
  return bring(*impl_, batch, changed, slot_mapping, stream);
}

std::optional<uint64_t> StepTables::launch_shape() const {
  // Whether it is split; of a window: has narrow items, has wide items, the most rows of a merge of
  // each.
  constexpr uint64_t kNarrowBits = std::bit_width(static_cast<uint32_t>(cuda::kNarrowRows));
  constexpr uint64_t kWideBits = std::bit_width(static_cast<uint32_t>(cuda::kWideRows));
  if (1 + impl_->windows.size() * (1 + kNarrowBits + 1 + kWideBits) > 64) return std::nullopt;
  uint64_t shape = impl_->is_split ? 1U : 0U;
  const auto add = [&](const StepItems& items, uint64_t row_bits) {
    shape = shape << 1U | (items.items.size > 0 ? 1U : 0U);
    shape = shape << row_bits | static_cast<uint64_t>(items.merged_rows);
  };
  for (const Impl::Window& window : impl_->windows) {
    add(window.narrow, kNarrowBits);
    add(window.wide, kWideBits);
  }
  return shape;
}

size_t StepTables::device_bytes() const {
  const Impl& tables = *impl_;
  return tables.device_memory.size_bytes() + tables.narrow.outs.size_bytes() +
         tables.narrow.lses.size_bytes() + tables.wide.outs.size_bytes() +
         tables.wide.lses.size_bytes();
}

}  // namespace lamina::kernels
