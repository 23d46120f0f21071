// RankGroup: the tensor-parallel ranks of a model worker, each with its shard of the model, its
// executor and its thread; one rank is the ordinary case and runs in the caller's thread alone. All
// ranks run the same slices in step with each other. Confined to one thread.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "exec/slice_executor.h"
#include "plan/step_plan.h"
#include "transport/collective.h"
#include "worker/attention_backend.h"

namespace lamina {

// One rank's shard; all of it outlives the group. Each rank has a pool of its own.
struct RankModel {
  const SlicedModel* model = nullptr;
  const WeightStore* weights = nullptr;
  StreamView stream;
};

// Of rank 0, since the group was made.
struct RankGroupTimes {
  Duration slices{};          // computing, sends and exchanges included
  Duration attention_wait{};  // waiting for attention's output (colocated: computing it)
};

class RankGroup {
 public:
  // `exchange_timeout` bounds how long ranks wait for each other. Throws what SliceExecutor throws.
  RankGroup(std::span<const RankModel> ranks, const StepLimits& limits, Duration exchange_timeout);
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;
  ~RankGroup();

  // One step on every rank, attention of rank r through attention[r]. The first error ends the step
  // on all ranks; the next step is a new one.
  Status run(const StepPlan& plan,
             const StepInputs& inputs,
             std::span<AttentionBackend* const> attention);

  // [S, V] f32 after a step, writable, valid until the next.
  [[nodiscard]] TensorView logits() const;
  [[nodiscard]] int32_t num_ranks() const { return static_cast<int32_t>(ranks_.size()); }
  [[nodiscard]] size_t activation_bytes() const;
  [[nodiscard]] const RankGroupTimes& times() const { return times_; }

 private:
  // What run() hands to the other ranks' threads.
  struct Job {
    const StepPlan* plan = nullptr;
    StepInputs inputs;
    std::span<AttentionBackend* const> attention;
  };
  struct Rank;

  void connect();
  void rank_loop(size_t rank);
  Status run_rank(size_t rank, const Job& job);
  Status run_and_report(size_t rank, const Job& job);

  StepLimits limits_;
  Duration exchange_timeout_;
  size_t exchange_bytes_ = 0;  // the most that one exchange carries
  std::vector<std::unique_ptr<Rank>> ranks_;
  RankGroupTimes times_;

  std::mutex mutex_;
  std::condition_variable changed_;
  Job job_;
  uint64_t generation_ = 0;  // one per job
  size_t num_running_ = 0;   // ranks that have not finished the job
  bool is_broken_ = false;   // an error ended a step: the exchanges start anew
  bool stopping_ = false;
  std::vector<std::thread> threads_;  // of ranks 1, 2, ...
};

}  // namespace lamina
