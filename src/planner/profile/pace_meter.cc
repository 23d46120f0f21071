#include "planner/profile/pace_meter.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/check.h"
#include "base/error.h"
#include "planner/profile/timing.h"

namespace lamina::planner {

namespace {

// Whose turn it is: slice, layer, slice, and so on. Who waits sleeps.
class Turns {
 public:
  void wait_for(uint32_t turn) const {
    for (uint32_t now = now_; now != turn; now = now_) now_.wait(now);
  }
  void end() {
    ++now_;
    now_.notify_one();
  }

 private:
  std::atomic<uint32_t> now_ = 0;
};

class PaceMeter {
 public:
  PaceMeter(SlicePart& slices,
            StreamView slices_pool,
            AttentionPart& attention,
            StreamView attention_pool,
            int32_t rows,
            size_t num_steps)
      : slices_(slices),
        slices_pool_(slices_pool),
        attention_(attention),
        attention_pool_(attention_pool),
        rows_(rows),
        num_steps_(num_steps) {}

  PacePoint measure() {
    const Seconds before = alone();
    const Seconds in_turns = taking_turns();
    const Seconds side_by_side = going_on();
    const Seconds after = alone();
    const auto paces = [&](const Seconds& measured) {
      const double slices_s = (before.slices + after.slices) / 2;
      const double attention_s = (before.attention + after.attention) / 2;
      return PaceFactors{.slices = std::max(1.0, measured.slices / slices_s),
                         .attention = std::max(1.0, measured.attention / attention_s)};
    };
    return {.rows = rows_, .in_turns = paces(in_turns), .side_by_side = paces(side_by_side)};
  }

 private:
  struct Seconds {
    double slices = 0;
    double attention = 0;
  };

  // Of steps of one of both, on its pool.
  template <typename Step>
  double median_s(StreamView pool, const Step& step) const {
    pool.adopt_this_thread();
    throw_if_error(step());
    std::vector<double> seconds;
    while (seconds.size() < num_steps_) {
      const double begin_s = running_s(pool);
      throw_if_error(step());
      seconds.push_back(running_s(pool) - begin_s);
    }
    return median_of(std::move(seconds));
  }
  Seconds alone() {
    return {.slices = median_s(slices_pool_, [&] { return slices_.run(rows_); }),
            .attention = median_s(attention_pool_, [&] { return attention_.run(); })};
  }

  // What did not fail alone does not now.
  template <typename Step>
  static std::jthread repeated(StreamView pool, std::atomic<bool>& is_over, const Step& step) {
    return std::jthread([pool, &is_over, step] {
      pool.adopt_this_thread();
      while (!is_over) LAMINA_CHECK(step().ok());
    });
  }

  Seconds going_on() {
    const auto slices = [&] { return slices_.run(rows_); };
    const auto attention = [&] { return attention_.run(); };
    Seconds seconds;
    {
      std::atomic<bool> is_over = false;
      const std::jthread other = repeated(attention_pool_, is_over, attention);
      seconds.slices = median_s(slices_pool_, slices);
      is_over = true;
    }
    std::atomic<bool> is_over = false;
    const std::jthread other = repeated(slices_pool_, is_over, slices);
    seconds.attention = median_s(attention_pool_, attention);
    is_over = true;
    return seconds;
  }

  // Layer by layer, as in a step of one micro-batch; the first step of each does not count.
  Seconds taking_turns() {
    Turns turns;
    std::vector<double> slices_s;
    std::vector<double> attention_s;
    {
      const std::jthread other([&] {
        attention_pool_.adopt_this_thread();
        for (uint32_t turn = 0; attention_s.size() <= num_steps_;) {
          attention_s.push_back(attention_in_turns(turns, turn));
        }
      });
      slices_pool_.adopt_this_thread();
      for (uint32_t turn = 0; slices_s.size() <= num_steps_;) {
        slices_s.push_back(slices_in_turns(turns, turn));
      }
    }
    return {.slices = median_of({slices_s.begin() + 1, slices_s.end()}),
            .attention = median_of({attention_s.begin() + 1, attention_s.end()})};
  }

  double slices_in_turns(Turns& turns, uint32_t& turn) {
    const int32_t count = slices_.num_slices();
    double seconds = 0;
    for (int32_t slice = 0; slice < count; ++slice) {
      turns.wait_for(turn);
      const double begin_s = running_s(slices_pool_);
      if (slice == 0) LAMINA_CHECK(slices_.begin(rows_).ok());
      LAMINA_CHECK(slices_.run_slices(slice, slice + 1).ok());
      if (slice + 1 == count) LAMINA_CHECK(slices_.sample().ok());
      seconds += running_s(slices_pool_) - begin_s;
      if (slice + 1 == count) break;  // the next step's first slice follows
      turns.end();
      turn += 2;
    }
    return seconds;
  }

  double attention_in_turns(Turns& turns, uint32_t& turn) {
    const int32_t count = slices_.num_slices() - 1;
    double seconds = 0;
    for (int32_t layer = 0; layer < count; ++layer, turn += 2) {
      turns.wait_for(turn + 1);
      const double begin_s = running_s(attention_pool_);
      LAMINA_CHECK(attention_.run_layer(layer % attention_.num_layers()).ok());
      seconds += running_s(attention_pool_) - begin_s;
      turns.end();
    }
    // A worker has fewer layers where those fill what it cycles through.
    return seconds * attention_.num_layers() / count;
  }

  SlicePart& slices_;
  StreamView slices_pool_;
  AttentionPart& attention_;
  StreamView attention_pool_;
  int32_t rows_;
  size_t num_steps_;
};

}  // namespace

PacePoint measure_paces(SlicePart& slices,
                        StreamView slices_pool,
                        AttentionPart& attention,
                        StreamView attention_pool,
                        int32_t rows,
                        size_t num_steps) {
  return PaceMeter(slices, slices_pool, attention, attention_pool, rows, num_steps).measure();
}

}  // namespace lamina::planner
