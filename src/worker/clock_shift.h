// ClockShift: how another host's clock differs from ours, from messages there and back: what we
// sent before it began and received after it ended. Good to half the shortest round trip; for
// traces.
#pragma once

#include <algorithm>
#include <optional>

#include "base/clock.h"

namespace lamina {

class ClockShift {
 public:
  // Takes in one exchange: `sent` by our clock, if known, then begin and end by theirs, then
  // `received` by ours. Returns what to add to their times. Zero, one clock for both, if that fits
  // all exchanges so far.
  Duration shift(std::optional<TimePoint> sent,
                 TimePoint begin,
                 TimePoint end,
                 TimePoint received) {
    if (sent) least_ = std::max(least_, *sent - begin);
    most_ = std::min(most_, received - end);
    if (least_ > most_) {  // a clock was set, or drifted: start anew
      least_ = sent ? *sent - begin : Duration::min();
      most_ = received - end;
    }
    if (least_ <= Duration::zero() && most_ >= Duration::zero()) return Duration::zero();
    return least_ == Duration::min() ? most_ : least_ + (most_ - least_) / 2;
  }

 private:
  Duration least_ = Duration::min();
  Duration most_ = Duration::max();
};

}  // namespace lamina
