// How long replays of a captured graph take, by the GPU's own events.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "device/gpu_graph.h"
#include "device/stream.h"

namespace lamina::measure {

// Microseconds of each of `count` replays, one after the other, sorted. Waits for them. kInternal
// if one fails.
Result<std::vector<double>> time_replays(const GpuGraph& graph, uint64_t count, StreamView stream);

}  // namespace lamina::measure
