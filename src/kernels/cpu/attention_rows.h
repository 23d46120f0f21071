// The softmax state of a task's rows: between tiles, between segments of keys, and between the two
// phases of a split call.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cpu/attention_tasks.h"

namespace lamina::kernels::cpu {

inline constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
inline constexpr float kLog2E = 1.44269504F;

// What a kernel's scores are exponents of. Those of two refer to integers, so that merging scales
// by powers of two, exactly.
enum class ScoreBase : uint8_t { kE, kTwo };

// State of one row: softmax numerators refer to `top`.
struct RowState {
  float top = kNegativeInfinity;
  float total = 0.0F;
};

// Some rows of a task.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// States and unnormalised sums [rows, stride] of a task's rows. Whole vectors fit `stride`, and
// there is room for rows up to a multiple of kRoom: a kernel may compute some that nobody wants.
struct RowSums {
  static constexpr int64_t kRoom = 16;

  RowState* states = nullptr;
  float* sums = nullptr;
  int64_t stride = 0;

  // In num_floats() of `memory`, which begins with a cache line; with whatever is there.
  RowSums(const RaggedAttentionArgs& args, const AttentionTask& task, float* memory);
  static int64_t num_floats(const RaggedAttentionArgs& args, const AttentionTask& task);

  // They met no key.
  void clear(RowRange rows) const;
  // These rows := merge(these, from), one by one.
  void merge(RowRange rows, const RowSums& from, ScoreBase base) const;
};

// The rows of a task on their way through its keys, in ascending order: what they hold of the
// segment at hand, and, merged, of all before it.
class TaskRows {
 public:
  // In num_floats() of `memory`, as RowSums; the task's arguments outlive it.
  TaskRows(const RaggedAttentionArgs& args,
           const AttentionTask& task,
           ScoreBase base,
           float* memory);
  TaskRows(const RaggedAttentionArgs& args,
           const AttentionTask& task,
           ScoreBase base,
           const RowSums& merged,
           const RowSums& open);
  static int64_t num_floats(const RaggedAttentionArgs& args, const AttentionTask& task) {
    return 2 * RowSums::num_floats(args, task);
  }

  // Before the first key of a task: with nothing; a sink, which is a key that was met before
  // position 0, with a value of zeros; or what the phase before left.
  void start();
  // Where somebody else has what is before `position`: with nothing.
  void start_at(int64_t position);

  // Before keys from `position` on are met, and no more before it.
  void enter(int64_t position) {
    if (segment_of(position) != segment_) begin_segment(segment_of(position));
  }
  // What keys are added to.
  [[nodiscard]] const RowSums& open() const { return open_; }

  // After the last key: the sums over all.
  const RowSums& finish();
  // Or leaves them for the phase that follows.
  void save();

 private:
  void begin_segment(int64_t segment);

  const RaggedAttentionArgs& args_;
  const AttentionTask& task_;
  RowRange all_;
  ScoreBase base_;
  RowSums merged_;
  RowSums open_;
  int64_t segment_ = 0;
  bool has_merged_ = false;
};

// Leaves rows for the phase that follows. `open`: of the segment where task.cached_end lies;
// `merged`: of those before, if there are any.
void save_rows(const RaggedAttentionArgs& args,
               const AttentionTask& task,
               RowRange rows,
               const RowSums& merged,
               const RowSums& open);

}  // namespace lamina::kernels::cpu
