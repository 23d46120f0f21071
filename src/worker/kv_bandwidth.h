// How fast a device attends to cached keys: what a worker tells of itself, so that shares of the KV
// cache can follow it.
#pragma once

#include "device/stream.h"

namespace lamina {

// KV bytes per second of decode attention over a cache larger than the processor's own, the median
// of several runs; takes some tens of milliseconds.
double measure_kv_bandwidth(StreamView stream);

}  // namespace lamina
