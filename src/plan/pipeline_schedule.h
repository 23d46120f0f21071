// How long a step takes where the slices of a step are known one by one: micro-batches over one
// replica and the attention workers played through in time, as ModelReplica and AttentionWorker
// take their turns. Exact where pipeline_model.h has bounds, and too slow for a search of
// thousands. Arithmetic only.
#pragma once

#include <cstdint>

namespace lamina {

// In seconds, of one micro-batch.
struct ScheduleTimes {
  double first_s = 0;      // the slice before the first attention
  double layer_s = 0;      // one between two layers
  double last_s = 0;       // the one after the last, and sampling
  double lead_share = 1;   // of a slice, until q leaves
  double attention_s = 0;  // of a layer
  double rest_s = 0;       // of it, after k and v are there
  double send_s = 0;       // of q's way; k and v leave with the slice's end
  double reply_s = 0;      // of the output's
  double engine_s = 0;     // from a step's end to the next one's first slice
};

// The time from a step of a micro-batch to its next, once there is a steady order.
double scheduled_step_s(const ScheduleTimes& times, int32_t num_layers, int32_t num_micro_batches);

}  // namespace lamina
