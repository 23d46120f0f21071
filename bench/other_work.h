// OtherWork: what share of some processors other programs than this one and its children have
// taken, for measurements that others' work would spoil. Linux alone. Confined to one thread.
#pragma once

#include <utility>
#include <vector>

namespace lamina::bench {

class OtherWork {
 public:
  // Of the processors that this program and its children run on.
  explicit OtherWork(std::vector<int> cpus) : cpus_(std::move(cpus)), begin_(now()) {}

  // Of 1, since construction. Children that have ended in between count as others.
  [[nodiscard]] double share() const;

 private:
  struct Ticks {
    double busy = 0;  // of the processors, idle time not counted
    double all = 0;
    double own = 0;
  };
  [[nodiscard]] Ticks now() const;

  std::vector<int> cpus_;
  Ticks begin_;
};

}  // namespace lamina::bench
