// Times of round trips: measured in batches until a time is over, and what of them is told. Used by
// everything that measures a transport.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace lamina::measure {

// No line has more.
inline constexpr uint64_t kMaxTrips = 100'000;

// Microseconds of as many round trips, or of as many whole graphs of them.
using Batch = std::function<Result<std::vector<double>>(uint64_t count)>;

// Batches of `first_count`, then of as many as the time that is left allows, four times as many at
// most: so a batch lasts little longer than `time`, however wrong the one before told its speed.
// The first warms up, and counts only if the time is over with it. Sorted. The error of a batch.
Result<std::vector<double>> measure_for(Duration time,
                                        uint64_t first_count,
                                        const Batch& batch,
                                        const Clock& clock = steady_clock());

struct TripSummary {
  double p50_us = 0;
  double p99_us = 0;
  double gb_per_s = 0;  // of both ways together, at the median
  uint64_t num_times = 0;
};
// Of `sorted` times, at least one, of messages of so many bytes each way.
TripSummary summarise(const std::vector<double>& sorted, uint64_t size_bytes);

}  // namespace lamina::measure
