#include "plan/pipeline_schedule.h"

#include <algorithm>
#include <vector>

namespace lamina {
namespace {

class Schedule {
 public:
  Schedule(const ScheduleTimes& times, int32_t num_layers, int32_t num_micro_batches)
      : times_(times), num_layers_(num_layers), batches_(static_cast<size_t>(num_micro_batches)) {}

  // When the first micro-batch has ended so many steps.
  double end_of(int32_t num_steps) {
    while (batches_.front().num_steps < num_steps) run_slice(next());
    return batches_.front().ready_s;
  }

 private:
  struct MicroBatch {
    int32_t slice = 0;
    int32_t num_steps = 0;
    double ready_s = 0;
    int64_t last_turn = 0;
  };

  // Of those that are ready who ran longest ago, else who is ready first.
  MicroBatch& next() {
    MicroBatch* next = &batches_.front();
    for (MicroBatch& batch : batches_) {
      const bool is_ready = batch.ready_s <= replica_free_s_;
      const bool next_is_ready = next->ready_s <= replica_free_s_;
      const bool is_better = is_ready && next_is_ready ? batch.last_turn < next->last_turn
                                                       : batch.ready_s < next->ready_s;
      if (is_better) next = &batch;
    }
    return *next;
  }

  void run_slice(MicroBatch& batch) {
    const bool is_last = batch.slice == num_layers_;
    const double slice_s = is_last            ? times_.last_s
                           : batch.slice == 0 ? times_.first_s
                                              : times_.layer_s;
    const double begin_s = std::max(replica_free_s_, batch.ready_s);
    replica_free_s_ = begin_s + slice_s;
    batch.last_turn = ++num_turns_;
    if (is_last) {
      batch.slice = 0;
      ++batch.num_steps;
      batch.ready_s = replica_free_s_ + times_.engine_s;
      return;
    }
    ++batch.slice;
    const double q_comes_s = begin_s + times_.lead_share * slice_s + times_.send_s;
    const double kv_comes_s = replica_free_s_ + times_.send_s;
    attention_free_s_ = std::max(std::max(q_comes_s, attention_free_s_) + times_.attention_s,
                                 kv_comes_s + times_.rest_s);
    batch.ready_s = attention_free_s_ + times_.reply_s;
  }

  const ScheduleTimes& times_;
  int32_t num_layers_;
  std::vector<MicroBatch> batches_;
  double replica_free_s_ = 0;
  double attention_free_s_ = 0;
  int64_t num_turns_ = 0;
};

}  // namespace

double scheduled_step_s(const ScheduleTimes& times, int32_t num_layers, int32_t num_micro_batches) {
  constexpr int32_t kWarmUp = 4;
  constexpr int32_t kSteps = 8;
  Schedule schedule(times, num_layers, num_micro_batches);
  const double begin_s = schedule.end_of(kWarmUp);
  return (schedule.end_of(kWarmUp + kSteps) - begin_s) / kSteps;
}

}  // namespace lamina
