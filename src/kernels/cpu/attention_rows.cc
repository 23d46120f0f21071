#include "kernels/cpu/attention_rows.h"

#include <cmath>

#include "base/checked_math.h"

namespace lamina::kernels::cpu {
namespace {

int64_t padded_rows(const RaggedAttentionArgs& args, const AttentionTask& task) {
  return round_up(num_rows(args, task), RowSums::kRoom);
}
int64_t padded_width(const RaggedAttentionArgs& args) {
  return round_up(value_dim(args), RowSums::kRoom);
}

// A sink's score is an exponent of e.
RowState state_of_sink(float sink, ScoreBase base) {
  if (base == ScoreBase::kE) return {sink, 1.0F};
  const float top = std::ceil(sink * kLog2E);
  return {top, std::exp2(sink * kLog2E - top)};
}

float power(ScoreBase base, float exponent) {
  return base == ScoreBase::kE ? std::exp(exponent) : std::exp2(exponent);
}

// into := into * into_share + from * from_share, a vector's worth at a time.
void add_shares(float* __restrict into,
                float into_share,
                const float* __restrict from,
                float from_share,
                int64_t count) {
  for (int64_t i = 0; i < count; i += RowSums::kRoom) {
    for (int64_t j = i; j < i + RowSums::kRoom; ++j) {
      into[j] = into[j] * into_share + from[j] * from_share;
    }
  }
}

// `state` has, of a row, what a RowState holds and then the sums; first of the merged segments,
// then of the one at hand.
float* saved_row(const RaggedAttentionArgs& args, const AttentionTask& task, int64_t row) {
  const int64_t head = task.kv_head * group_size(args) + row % group_size(args);
  return args.state.row<float>(task.begin + row / group_size(args)) + head * args.state.shape[2];
}
int64_t saved_part(const RaggedAttentionArgs& args) {
  return args.state.shape[2] / 2;
}

void load_row(const float* saved, int64_t width, const RowSums& to, int64_t row) {
  to.states[row] = {saved[0], saved[1]};
  float* sums = to.sums + row * to.stride;
  std::copy_n(saved + 2, width, sums);
  std::fill(sums + width, sums + to.stride, 0.0F);
}

void save_row(const RowSums& from, int64_t row, int64_t width, float* saved) {
  saved[0] = from.states[row].top;
  saved[1] = from.states[row].total;
  std::copy_n(from.sums + row * from.stride, width, saved + 2);
}

}  // namespace

RowSums::RowSums(const RaggedAttentionArgs& args, const AttentionTask& task, float* memory)
    : states(reinterpret_cast<RowState*>(memory + padded_rows(args, task) * padded_width(args))),
      sums(memory),
      stride(padded_width(args)) {}

int64_t RowSums::num_floats(const RaggedAttentionArgs& args, const AttentionTask& task) {
  static_assert(sizeof(RowState) == 2 * sizeof(float));
  return padded_rows(args, task) * (padded_width(args) + 2);
}

void RowSums::clear(RowRange rows) const {
  std::fill(states + rows.begin, states + rows.end, RowState());
  std::fill(sums + rows.begin * stride, sums + rows.end * stride, 0.0F);
}

void RowSums::merge(RowRange rows, const RowSums& from, ScoreBase base) const {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const RowState added = from.states[row];
    if (added.top == kNegativeInfinity) continue;
    RowState& state = states[row];
    float* to = sums + row * stride;
    if (state.top == kNegativeInfinity) {
      state = added;
      std::copy_n(from.sums + row * stride, stride, to);
      continue;
    }
    const float top = std::max(state.top, added.top);
    const float share = power(base, state.top - top);
    const float added_share = power(base, added.top - top);
    add_shares(to, share, from.sums + row * stride, added_share, stride);
    state = {top, state.total * share + added.total * added_share};
  }
}

TaskRows::TaskRows(const RaggedAttentionArgs& args,
                   const AttentionTask& task,
                   ScoreBase base,
                   float* memory)
    : TaskRows(args,
               task,
               base,
               RowSums(args, task, memory),
               RowSums(args, task, memory + RowSums::num_floats(args, task))) {}

TaskRows::TaskRows(const RaggedAttentionArgs& args,
                   const AttentionTask& task,
                   ScoreBase base,
                   const RowSums& merged,
                   const RowSums& open)
    : args_(args),
      task_(task),
      all_{0, num_rows(args, task)},
      base_(base),
      merged_(merged),
      open_(open) {}

void TaskRows::start() {
  segment_ = args_.phase == AttentionPhase::kRest ? segment_of(task_.cached_end) : 0;
  has_merged_ = segment_ > 0;
  if (args_.phase == AttentionPhase::kRest) {
    const int64_t width = value_dim(args_);
    for (int64_t row = 0; row < all_.end; ++row) {
      const float* saved = saved_row(args_, task_, row);
      if (has_merged_) load_row(saved, width, merged_, row);
      load_row(saved + saved_part(args_), width, open_, row);
    }
  } else {
    open_.clear(all_);
    for (int64_t row = 0; row < all_.end && !args_.sinks.empty(); ++row) {
      const int64_t head = task_.kv_head * group_size(args_) + row % group_size(args_);
      open_.states[row] = state_of_sink(args_.sinks[static_cast<size_t>(head)], base_);
    }
  }
  enter(task_.keys.begin);
}

void TaskRows::start_at(int64_t position) {
  segment_ = segment_of(position);
  open_.clear(all_);
}

void TaskRows::begin_segment(int64_t segment) {
  if (!has_merged_) merged_.clear(all_);
  merged_.merge(all_, open_, base_);
  has_merged_ = true;
  open_.clear(all_);
  segment_ = segment;
}

const RowSums& TaskRows::finish() {
  if (!has_merged_) return open_;
  merged_.merge(all_, open_, base_);
  return merged_;
}

void TaskRows::save() {
  enter(task_.cached_end);
  save_rows(args_, task_, all_, merged_, open_);
}

void save_rows(const RaggedAttentionArgs& args,
               const AttentionTask& task,
               RowRange rows,
               const RowSums& merged,
               const RowSums& open) {
  const int64_t width = value_dim(args);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    float* saved = saved_row(args, task, row);
    if (segment_of(task.cached_end) > 0) save_row(merged, row, width, saved);
    save_row(open, row, width, saved + saved_part(args));
  }
}

}  // namespace lamina::kernels::cpu
