#include "planner/profile/timing.h"

#include <algorithm>
#include <chrono>

#include "base/cpu_time.h"

namespace lamina::planner {

double running_s(StreamView pool) {
  const bool is_whole_pool = pool.pool().num_threads() == 1;
  const Duration now = is_whole_pool ? thread_cpu_time() : steady_clock().now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

double median_of(std::vector<double> seconds) {
  const auto middle = seconds.begin() + static_cast<ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

}  // namespace lamina::planner
