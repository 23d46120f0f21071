// Clock: the only source of time, so that tests and the simulator can own it. Deadline: a point on
// a Clock's line. SteadyClock is immutable and thread-safe; ManualClock is internally locked.
#pragma once

#include <atomic>
#include <chrono>
#include <limits>

namespace lamina {

using Duration = std::chrono::nanoseconds;

// Nanoseconds since an arbitrary origin of the clock that made it.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual TimePoint now() const = 0;
};

// The process's monotonic clock; lives as long as the process.
const Clock& steady_clock();

// Moves only when told to.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return TimePoint(Duration(now_ns_.load())); }
  void advance(Duration by) { now_ns_.fetch_add(by.count()); }

 private:
  std::atomic<int64_t> now_ns_{0};
};

// A point in time by which a wait ends. Every wait has one.
class Deadline {
 public:
  static Deadline after(Duration wait, const Clock& clock = steady_clock()) {
    return Deadline(clock.now() + wait);
  }
  static Deadline at(TimePoint when) { return Deadline(when); }
  // Already passed: poll once, do not wait.
  static Deadline expired() { return Deadline(TimePoint::min()); }

  [[nodiscard]] TimePoint when() const { return when_; }
  [[nodiscard]] bool has_passed(const Clock& clock = steady_clock()) const {
    return clock.now() >= when_;
  }
  // Time left; zero when passed.
  [[nodiscard]] Duration remaining(const Clock& clock = steady_clock()) const {
    const TimePoint now = clock.now();
    return now >= when_ ? Duration::zero() : when_ - now;
  }

 private:
  explicit Deadline(TimePoint when) : when_(when) {}
  TimePoint when_;
};

}  // namespace lamina
