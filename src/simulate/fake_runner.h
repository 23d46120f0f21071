// FakeRunner and TimedCore: what is faked of a model replica and of an attention worker in a
// simulation. A FakeRunner computes a FakeModel's slices; TimedCore runs the real kernels. What
// each would take is added to its host's time. Confined to the simulation's thread.
#pragma once

#include <vector>

#include "base/rng.h"
#include "simulate/fake_model.h"
#include "simulate/pipeline_record.h"
#include "transport/sim/sim_host.h"
#include "worker/attention_core.h"
#include "worker/slice_runner.h"

namespace lamina::simulate {

struct ComputeTimes {
  Duration slice{};        // t_m
  Duration last_slice{};   // which samples, and may be thought one with the next step's first
  Duration attention{};    // t_a
  double q_share = 1;      // of a slice, before q is sent
  double early_share = 0;  // of an attention, where it starts on the cached keys
  double spread = 0;       // each time is drawn from 1 - spread to 1 + spread of it
};

// Draws what the next piece of work takes.
class Stopwatch {
 public:
  Stopwatch(const ComputeTimes& times, uint64_t seed) : times_(times), rng_(seed) {}
  [[nodiscard]] const ComputeTimes& times() const { return times_; }
  Duration draw(Duration mean);

 private:
  ComputeTimes times_;
  Rng rng_;
};

// Where a fake belongs. All outlive it.
struct Place {
  SimHost* host = nullptr;
  PipelineRecord* record = nullptr;
  int32_t idx = 0;  // of the replica or the attention worker
};

class FakeRunner final : public SliceRunner {
 public:
  // `model` outlives the runner.
  FakeRunner(const FakeModel& model,
             const Place& place,
             const Stopwatch& stopwatch,
             int32_t num_micro_batches,
             int32_t max_tokens);

  [[nodiscard]] int32_t num_slices() const override { return model_.config().num_layers + 1; }
  [[nodiscard]] int32_t num_ranks() const override { return 1; }
  Status begin(int32_t micro_batch, const StepInputs& inputs) override;
  [[nodiscard]] int64_t num_rows(int32_t micro_batch) const override {
    return std::ssize(batches_[static_cast<size_t>(micro_batch)].inputs.token_ids);
  }
  Status run_slices(std::span<const SliceRun> runs,
                    std::span<AttentionBackend* const> attention) override;
  [[nodiscard]] TensorView logits() const override;
  [[nodiscard]] size_t carried_bytes(int32_t micro_batch, int32_t slice_idx) const override;
  void pack_carried(int32_t micro_batch, int32_t slice_idx, std::span<std::byte> to) const override;
  void unpack_carried(int32_t micro_batch,
                      int32_t slice_idx,
                      std::span<const std::byte> from) override;
  [[nodiscard]] size_t max_carried_bytes() const override;

 private:
  struct MicroBatch {
    int64_t num_steps = 0;
    StepInputs inputs;
    std::vector<FakeModel::State> states;  // [T]
  };

  Status run_slice(int32_t micro_batch,
                   int32_t slice_idx,
                   std::span<AttentionBackend* const> attention);
  Status absorb(MicroBatch& batch, int32_t micro_batch, int32_t layer, AttentionBackend& attention);
  [[nodiscard]] int64_t sum_of(float mean, int32_t num_seen) const;
  Status send(const MicroBatch& batch,
              int32_t micro_batch,
              int32_t layer,
              AttentionBackend& attention);
  void write_queries(const MicroBatch& batch, int32_t layer);
  void write_keys_and_values(const MicroBatch& batch, int32_t layer);
  void write_logits(const MicroBatch& batch);
  [[nodiscard]] static TensorView view(std::vector<float>& values, size_t rows, int32_t heads);

  const FakeModel& model_;
  Place place_;
  Stopwatch stopwatch_;
  int32_t max_tokens_;
  std::vector<MicroBatch> batches_;
  std::vector<float> q_, k_, v_, out_;
  std::vector<int64_t> sums_;
  std::vector<float> logits_;
};

class TimedCore final : public AttentionCore {
 public:
  TimedCore(const AttentionCoreConfig& config,
            StreamView stream,
            const Place& place,
            const Stopwatch& stopwatch);

  Status start(int32_t micro_batch, int32_t layer_idx, TensorView q) override;
  Status attend(int32_t micro_batch,
                int32_t layer_idx,
                TensorView q,
                TensorView out,
                TensorView lse) override;

 private:
  Place place_;
  Stopwatch stopwatch_;
  std::vector<int64_t> num_attentions_;  // of each micro-batch
  std::vector<bool> has_started_;
};

}  // namespace lamina::simulate
