// OtherWork: what share of the machine's processors other programs than this one and its children
// have taken, for measurements that others' work would spoil. Linux alone. Confined to one thread.
#pragma once

namespace lamina::bench {

class OtherWork {
 public:
  OtherWork() : begin_(now()) {}

  // Of 1, of all processors since construction. Children that have ended in between count as
  // others.
  [[nodiscard]] double share() const;

 private:
  struct Ticks {
    double busy = 0;  // of all processors, idle ones not counted
    double all = 0;
    double own = 0;
  };
  static Ticks now();

  Ticks begin_;
};

}  // namespace lamina::bench
