#include "exec/memory_plan.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "device/buffer.h"

namespace lamina {
namespace {

// A buffer that must exist from `begin` to `end`, both included, on some time line.
struct Interval {
  ValueId value = 0;
  int32_t begin = 0;
  int32_t end = 0;
  size_t size_bytes = 0;
  size_t offset = 0;
};

// Offsets such that no two intervals that overlap in time overlap in memory: first fit, largest
// first. Returns the total.
size_t assign_offsets(std::vector<Interval>& intervals) {
  std::stable_sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) {
    return a.size_bytes > b.size_bytes;
  });
  size_t total = 0;
  std::vector<const Interval*> placed;  // by offset
  for (Interval& interval : intervals) {
    size_t offset = 0;
    for (const Interval* other : placed) {
      if (other->end < interval.begin || interval.end < other->begin) continue;
      if (offset + interval.size_bytes <= other->offset) break;
      offset = std::max(offset, other->offset + other->size_bytes);
    }
    interval.offset = offset;
    total = std::max(total, offset + interval.size_bytes);
    const auto by_offset = [](const Interval* a, const Interval* b) {
      return a->offset < b->offset;
    };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), &interval, by_offset), &interval);
  }
  return total;
}

size_t buffer_bytes(const ValueType& type, const StepLimits& limits) {
  LAMINA_CHECK(type.rows != RowAxis::kFixed);
  const int64_t rows = type.rows == RowAxis::kTokens ? limits.max_tokens : limits.max_logits_rows;
  return round_up(static_cast<size_t>(rows * type.row_bytes()), kBufferAlignment);
}

// Where a value begins in the rows of the value whose memory it shares; of no view: in its own.
struct ViewOf {
  ValueId storage = 0;
  size_t offset_bytes = 0;
};

std::vector<ViewOf> find_views(const Graph& graph) {
  std::vector<ViewOf> views;
  for (const Node& node : graph.nodes()) {
    if (node.kind != OpKind::kReshape && node.kind != OpKind::kColumns) {
      views.push_back({node.id, 0});
      continue;
    }
    ViewOf view = views[static_cast<size_t>(node.inputs[0])];
    if (const auto* columns = std::get_if<ColumnsAttrs>(&node.attrs)) {
      view.offset_bytes +=
          static_cast<size_t>(node.type.row_bytes() / columns->count * columns->begin);
    }
    views.push_back(view);
  }
  return views;
}

bool needs_memory(const Graph& graph, ValueId value) {
  const OpKind kind = graph.node(value).kind;
  return kind != OpKind::kWeight && kind != OpKind::kInput;
}

class Planner {
 public:
  Planner(const SlicedModel& model, const StepLimits& limits)
      : model_(model),
        graph_(model.graph),
        limits_(limits),
        num_values_(graph_.nodes().size()),
        views_(find_views(graph_)) {}

  MemoryPlan plan() {
    plan_.places.assign(model_.slices.size(), std::vector<ValuePlace>(num_values_));
    place_carried();
    for (const Slice& slice : model_.slices) place_scratch(slice);
    for (std::vector<ValuePlace>& places : plan_.places) place_views(places);
    return std::move(plan_);
  }

 private:
  // Carried values live on the time line of slices, each from its producer to its last reader; q
  // until attention's output is received.
  void place_carried() {
    std::vector<Interval> intervals;
    std::vector<size_t> interval_of(num_values_, SIZE_MAX);
    const auto carry = [&](ValueId value, int32_t slice_idx) {
      lengthen(intervals, interval_of, storage_of(value), {slice_idx, slice_idx + 1});
    };
    for (const Slice& slice : model_.slices) {
      for (const ValueId carried : slice.carried_out) carry(carried, slice.idx);
      const auto idx = static_cast<size_t>(slice.idx);
      if (idx < model_.attentions.size()) carry(model_.attentions[idx].q, slice.idx);
    }
    plan_.carried_bytes = assign_offsets(intervals);
    for (const Interval& interval : intervals) {
      for (int32_t slice = interval.begin; slice <= interval.end; ++slice) {
        place(slice, interval.value) = place_of(ValueRegion::kCarried, interval);
      }
    }
  }

  // The rest lives on the time line of the slice's instructions.
  void place_scratch(const Slice& slice) {
    std::vector<Interval> intervals;
    std::vector<size_t> interval_of(num_values_, SIZE_MAX);
    const auto touch = [&](ValueId value, int32_t time) {
      value = storage_of(value);
      if (!needs_memory(graph_, value) || place(slice.idx, value).region == ValueRegion::kCarried)
        return;
      lengthen(intervals, interval_of, value, {time, time});
    };
    for (size_t i = 0; i < slice.program.size(); ++i) {
      for (const ValueId value : touched_values(slice.program[i]))
        touch(value, static_cast<int32_t>(i));
    }
    if (slice.idx + 1 == static_cast<int32_t>(model_.slices.size())) {
      touch(graph_.output(),
            static_cast<int32_t>(slice.program.size()));  // read after the last instruction
    }
    plan_.scratch_bytes = std::max(plan_.scratch_bytes, assign_offsets(intervals));
    for (const Interval& interval : intervals) {
      place(slice.idx, interval.value) = place_of(ValueRegion::kScratch, interval);
    }
  }

  // The value's interval, which begins here if it has none yet, ends at `time.end`.
  struct Time {
    int32_t begin = 0;
    int32_t end = 0;
  };
  void lengthen(std::vector<Interval>& intervals,
                std::vector<size_t>& interval_of,
                ValueId value,
                Time time) const {
    size_t& index = interval_of[static_cast<size_t>(value)];
    if (index == SIZE_MAX) {
      index = intervals.size();
      intervals.push_back({.value = value,
                           .begin = time.begin,
                           .size_bytes = buffer_bytes(graph_.type(value), limits_)});
    }
    intervals[index].end = time.end;
  }

  [[nodiscard]] std::vector<ValueId> touched_values(const Instruction& instruction) const {
    if (instruction.kind == InstructionKind::kCompute) {
      std::vector<ValueId> values = graph_.node(instruction.node).inputs;
      values.push_back(instruction.node);
      return values;
    }
    const AttentionOp& attention =
        model_.attentions[static_cast<size_t>(instruction.attention_idx)];
    switch (instruction.kind) {
      case InstructionKind::kSendQ:
        return {attention.q};
      case InstructionKind::kSendKv:
        return {attention.k, attention.v};
      case InstructionKind::kReceive:
        return {attention.out};
      case InstructionKind::kCompute:
        break;
    }
    return {};
  }

  void place_views(std::vector<ValuePlace>& places) const {
    for (const Node& node : graph_.nodes()) {
      const auto i = static_cast<size_t>(node.id);
      if (storage_of(node.id) == node.id) continue;
      places[i] = places[static_cast<size_t>(storage_of(node.id))];
      places[i].offset += views_[i].offset_bytes;
    }
  }

  [[nodiscard]] ValueId storage_of(ValueId value) const {
    return views_[static_cast<size_t>(value)].storage;
  }
  [[nodiscard]] ValuePlace place_of(ValueRegion region, const Interval& interval) const {
    const int64_t row_bytes = graph_.type(interval.value).row_bytes();
    return {region, interval.offset, static_cast<size_t>(row_bytes)};
  }
  ValuePlace& place(int32_t slice, ValueId value) {
    return plan_.places[static_cast<size_t>(slice)][static_cast<size_t>(value)];
  }

  const SlicedModel& model_;
  const Graph& graph_;
  StepLimits limits_;
  size_t num_values_;
  std::vector<ViewOf> views_;  // by value
  MemoryPlan plan_;
};

}  // namespace

MemoryPlan plan_memory(const SlicedModel& model, const StepLimits& limits) {
  LAMINA_CHECK_GT(limits.max_tokens, 0);
  LAMINA_CHECK_GT(limits.max_logits_rows, 0);
  MemoryPlan plan = Planner(model, limits).plan();
  plan.verify(model, limits);
  return plan;
}

}  // namespace lamina
