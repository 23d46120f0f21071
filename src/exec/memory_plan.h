// MemoryPlan: where every value of a sliced model lies while it is needed. Planned once for the
// largest step, so that a step allocates nothing. Scratch memory is reused within a slice and
// between slices; carried memory lasts from the slice that makes a value to the last one that reads
// it. Pure function, immutable result.
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
  size_t offset = 0;  // bytes
};

struct MemoryPlan {
  // places[slice][value]: kNone for weights, step inputs and values that the slice does not touch.
  // A reshaped value lies where its source lies.
  std::vector<std::vector<ValuePlace>> places;
  size_t scratch_bytes = 0;
  size_t carried_bytes = 0;
};

MemoryPlan plan_memory(const SlicedModel& model, const StepLimits& limits);

}  // namespace lamina
