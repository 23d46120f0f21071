// RankGroup: the tensor-parallel ranks of a model replica, each with its shard of the model, its
// executor and its thread; one rank is the ordinary case and runs in the caller's thread alone. All
// ranks run the same slices in step with each other. Confined to one thread. Ranks on GPUs only
// enqueue, so that a thread of the group's own sees to it that they do not wait for ever.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "exec/slice_executor.h"
#include "worker/rank_exchange.h"
#include "worker/slice_runner.h"

namespace lamina {

// One rank's shard; all of it outlives the group. Each rank has a pool or GPU of its own.
struct RankModel {
  const SlicedModel* model = nullptr;
  const WeightStore* weights = nullptr;
  StreamView stream;
};

class RankGroup final : public SliceRunner {
 public:
  // `exchange_timeout` bounds how long ranks wait for each other. Throws what SliceExecutor and
  // connect_ranks() throw.
  RankGroup(std::span<const RankModel> ranks,
            const StepLimits& limits,
            int32_t num_micro_batches,
            Duration exchange_timeout);
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;
  ~RankGroup() override;

  [[nodiscard]] int32_t num_slices() const override;
  [[nodiscard]] int32_t num_ranks() const override { return static_cast<int32_t>(ranks_.size()); }
  // The calling thread computes for rank 0 from now on.
  Status begin(int32_t micro_batch, const StepInputs& inputs) override;
  [[nodiscard]] int64_t num_rows(int32_t micro_batch) const override;
  // On every rank. The first error ends the step on all ranks; the next step is a new one.
  Status run_slices(std::span<const SliceRun> runs,
                    std::span<AttentionBackend* const> attention) override;
  // Captured graphs hold on to what attention was. Nothing is under way.
  void forget_graphs();
  [[nodiscard]] TensorView logits() const override;
  [[nodiscard]] Status check_exchanges() override;
  [[nodiscard]] size_t carried_bytes(int32_t micro_batch, int32_t slice_idx) const override;
  void pack_carried(int32_t micro_batch, int32_t slice_idx, std::span<std::byte> to) const override;
  void unpack_carried(int32_t micro_batch,
                      int32_t slice_idx,
                      std::span<const std::byte> from) override;
  [[nodiscard]] size_t max_carried_bytes() const override;
  [[nodiscard]] size_t activation_bytes() const;

 private:
  // What run_slices() hands to the other ranks' threads.
  struct Job {
    std::span<const SliceRun> runs;
    std::span<AttentionBackend* const> attention;
  };
  struct Rank;

  void connect();
  Status reconnect();
  void rank_loop(size_t rank);
  Status run_and_report(size_t rank, const Job& job);
  Status first_error() const;
  void break_off();
  void watch();
  [[nodiscard]] bool is_stuck() const;

  StepLimits limits_;
  Duration exchange_timeout_;
  size_t exchange_bytes_ = 0;  // the most that one exchange carries
  std::vector<std::unique_ptr<Rank>> ranks_;

  std::mutex mutex_;
  std::condition_variable changed_;
  Job job_;
  uint64_t generation_ = 0;  // one per job
  size_t num_running_ = 0;   // ranks that have not finished the job
  bool is_running_ = false;  // a job is under way
  TimePoint last_call_;      // when a step or job began, or a job ended, last
  bool is_broken_ = false;   // an error ended a step: the exchanges start anew
  bool is_late_ = false;     // and the error is that ranks waited for too long
  bool stopping_ = false;
  std::condition_variable stopped_;
  std::vector<std::thread> threads_;  // of ranks 1, 2, ..., and the one that watches
};

}  // namespace lamina
