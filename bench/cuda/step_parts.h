// What a decoding step of a model is made of, each part measured alone on a GPU: seconds of one
// micro-batch, medians. All throw Error.
#pragma once

#include <compare>
#include <cstdint>

#include "engine/model_program.h"
#include "transport/measure/device_trips.h"

namespace lamina::bench {

struct Point {
  int32_t batch = 0;
  int32_t context = 0;
  auto operator<=>(const Point&) const = default;
};

// All slices of the program's first rank, without attention.
double measure_slices(const ModelProgram& program, StreamView stream, int32_t batch);
// Append and attention of all layers, captured, on a card of its own: of one worker of so many that
// share the heads.
double measure_attention(const ModelProgram& program,
                         StreamView stream,
                         Point point,
                         int32_t num_workers);
// A layer's messages, to the attention worker and back, in captured graphs as steps send them: half
// of a round trip of either size.
double measure_wire(measure::DeviceTrips& trips, const AttentionAttrs& heads, int32_t batch);

}  // namespace lamina::bench
