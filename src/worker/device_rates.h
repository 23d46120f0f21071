// What a device was measured to do, with the kernels that serve: the ceilings of the lower bounds
// that are printed beside measured times, and what shares of the KV cache follow.
#pragma once

#include <optional>

#include "device/stream.h"
#include "plan/decode_bounds.h"
#include "tensor/dtype.h"
#include "tensor/packed_matrix.h"

namespace lamina {

// KV bytes per second of decode attention over a cache larger than the processor's own, the median
// of several runs; takes some tens of milliseconds.
double measure_kv_bandwidth(StreamView stream);

// Products of one row, which read weights, and of many, which compute: the best of several runs;
// takes some tens of milliseconds. The rate of computing is that of weights in `format`, if given.
DeviceRates measure_product_rates(StreamView stream,
                                  DType dtype,
                                  std::optional<PackedFormat> format);

}  // namespace lamina
