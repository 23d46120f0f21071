// PipelineController: watches how the model and the attention pool are kept busy, and decides how
// many micro-batches are in flight where that is left to it. Confined to the engine's thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/clock.h"
#include "engine/engine.h"
#include "plan/decode_bounds.h"
#include "plan/pipeline_model.h"
#include "scheduler/scheduler.h"
#include "worker/pipeline_meter.h"

namespace lamina {

struct PipelineControllerConfig {
  Rotation rotation;     // the most micro-batches that the workers are prepared for
  bool is_auto = false;  // else all of them are in flight, always
  int32_t num_layers = 1;
  // For the bounds that are shown beside what was measured; zeros where not known.
  DecodeWork work;
  DeviceRates rates;          // of a replica's device
  double kv_bytes_per_s = 0;  // of all attention together, where workers do not tell
};

class PipelineController {
 public:
  explicit PipelineController(const PipelineControllerConfig& config);

  // A decoding step that has ended, from its start.
  void add_step(Duration time);
  // Attention workers that are up.
  struct Pool {
    int32_t num_workers = 0;
    double kv_bytes_per_s = 0;  // of all together; 0: not measured
  };
  // What was measured over `busy` of time with a step under way, with these loads and workers. Now
  // and then, at least every few hundred milliseconds apart.
  void update(const PipelineSample& sample,
              Duration busy,
              std::span<const Scheduler::Load> loads,
              const Pool& pool);

  // Micro-batches to keep in flight.
  [[nodiscard]] int32_t num_active() const { return num_active_; }
  // Of the last update().
  [[nodiscard]] const PipelineStats& stats() const { return stats_; }
  // "2 micro-batches x 1 replica: 31.2 ms a step (bound 28.9): model 14.1, attention 12.9, ...".
  [[nodiscard]] std::string report() const;

 private:
  void measure(const PipelineSample& sample,
               Duration busy,
               std::span<const Scheduler::Load> loads,
               const Pool& pool);
  void add_bounds(std::span<const Scheduler::Load> loads, const Pool& pool);
  void decide(int32_t num_tokens);
  [[nodiscard]] LayerCosts costs(int32_t num_tokens) const;
  [[nodiscard]] double slices_per_layer() const;

  PipelineControllerConfig config_;
  int32_t num_active_ = 1;
  PipelineStats stats_;
  LineFit slices_;  // of decoding steps, old ones fading
  LayerTimes times_;
  double step_seconds_ = 0;  // since the last update
  int64_t num_steps_ = 0;
  int32_t num_updates_ = 0;
  int32_t last_trial_ = 0;  // the update of the last change made only to learn from it
};

}  // namespace lamina
