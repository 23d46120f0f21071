// The same round trips by NCCL's send and receive, in a captured graph on each of two GPUs: what
// the transport is compared with.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace lamina::bench {

// Microseconds of a round trip of `size_bytes` between the first two GPUs: of each of `num_replays`
// of a graph of `num_rounds`, the mean; sorted. kUnavailable without NCCL, kUnimplemented in a
// build without it.
Result<std::vector<double>> nccl_round_trips_us(uint64_t size_bytes,
                                                uint32_t num_rounds,
                                                uint64_t num_replays);

}  // namespace lamina::bench
