#include "transport/measure/trip_times.h"

#include <algorithm>

#include "base/check.h"

namespace lamina::measure {
namespace {

constexpr uint64_t kMostGrowth = 4;

// As many as `left` allows at `took` for `count`.
uint64_t next_count(uint64_t count, Duration took, Duration left) {
  const double each_ns =
      std::max(1.0, static_cast<double>(took.count())) / static_cast<double>(count);
  const double fitting = std::max(1.0, static_cast<double>(left.count()) / each_ns);
  const uint64_t most = std::min(kMostGrowth * count, kMaxTrips);
  return fitting < static_cast<double>(most) ? static_cast<uint64_t>(fitting) : most;
}

}  // namespace

Result<std::vector<double>> measure_for(Duration time,
                                        uint64_t first_count,
                                        const Batch& batch,
                                        const Clock& clock) {
  const Deadline end = Deadline::after(time, clock);
  uint64_t count = first_count;
  TimePoint begin = clock.now();
  LAMINA_ASSIGN_OR_RETURN(std::vector<double> times_us, batch(count));
  bool is_warm_up = true;
  while (!end.has_passed(clock) && times_us.size() < kMaxTrips) {
    count = next_count(count, clock.now() - begin, end.remaining(clock));
    begin = clock.now();
    LAMINA_ASSIGN_OR_RETURN(const std::vector<double> more, batch(count));
    if (is_warm_up) times_us.clear();
    is_warm_up = false;
    times_us.insert(times_us.end(), more.begin(), more.end());
  }
  std::sort(times_us.begin(), times_us.end());
  return times_us;
}

TripSummary summarise(const std::vector<double>& sorted, uint64_t size_bytes) {
  LAMINA_CHECK(!sorted.empty());
  const double p50_us = sorted[sorted.size() / 2];
  return {.p50_us = p50_us,
          .p99_us = sorted[sorted.size() * 99 / 100],
          .gb_per_s = 2.0 * static_cast<double>(size_bytes) / p50_us * 1e-3,
          .num_times = sorted.size()};
}

}  // namespace lamina::measure
