// What slices and attention cost each other where each has a pool of one machine, as model worker
// and attention worker do: they rest while the other works, and share caches and memory. Confined
// to one thread, beside which it starts another.
#pragma once

#include "planner/profile/profile.h"
#include "planner/profile/step_parts.h"

namespace lamina::planner {

// Medians of so many steps of `rows` sequences. Throws Error.
PacePoint measure_paces(SlicePart& slices,
                        StreamView slices_pool,
                        AttentionPart& attention,
                        StreamView attention_pool,
                        int32_t rows,
                        size_t num_steps);

}  // namespace lamina::planner
