// MemoryPlan: where every value of a sliced model lies while it is needed. Planned once for the
// largest step, so that a step allocates nothing. Scratch memory is reused within a slice and
// between slices; carried memory lasts from the slice that makes a value to the last one that reads
// it; attention's q is carried, too, until the slice that receives the output, so that attention on
// this device needs no copy. A view (kReshape, kColumns) lies in the memory of the value that it is
// a view of, its storage; where a view is carried its whole storage is. Pure function, immutable
// result.
#pragma once

#include <cstdint>
#include <vector>

#include "convert/sliced_model.h"

namespace lamina {

// Rows the buffers are sized for.
struct StepLimits {
  int32_t max_tokens = 0;
  int32_t max_logits_rows = 0;
};

enum class ValueRegion : uint8_t { kNone, kScratch, kCarried };

struct ValuePlace {
  ValueRegion region = ValueRegion::kNone;
  size_t offset = 0;            // bytes to the first row
  size_t row_stride_bytes = 0;  // from a row to the next: the storage's, wider than a view's own
};

struct MemoryPlan {
  // places[slice][value]: kNone for weights, step inputs and values that the slice does not touch.
  std::vector<std::vector<ValuePlace>> places;
  size_t scratch_bytes = 0;
  size_t carried_bytes = 0;

  // Follows all programs over this memory, sharing nothing with the planner: every value that is
  // read is still whole, no operator writes into what it reads, nothing lies outside. Throws Error
  // kInternal naming the value. plan_memory() ends with it.
  void verify(const SlicedModel& model, const StepLimits& limits) const;
};

MemoryPlan plan_memory(const SlicedModel& model, const StepLimits& limits);

}  // namespace lamina
