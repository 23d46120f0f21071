// PipelineRecord: what ran where and when in one session of a simulation, and whether it was as
// plan/rotation.h has it: every slice of a micro-batch once and in order, on the replica whose turn
// it is, after the one before it, and no two at once on a replica: none begins before the one
// before it was ended, sampling included. Confined to one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "plan/rotation.h"

namespace lamina::simulate {

// A slice on a replica, or an attention on an attention worker.
struct Work {
  int32_t worker_idx = 0;
  int32_t micro_batch = 0;
  // Counted on through the steps; the last slice of a step and the first of the next are one.
  int64_t slice = 0;
  TimePoint begin{};
  TimePoint end{};
};

class PipelineRecord {
 public:
  // `keeps_all`: slices() and attentions() are wanted.
  PipelineRecord(Rotation rotation, int32_t num_layers, bool keeps_all);

  // Slice `slice_idx` of a micro-batch's step; steps count from 0. Of `work` the worker, the
  // micro-batch and the begin are read.
  void begin_slice(const Work& work, int64_t step, int32_t slice_idx);
  // Of the slice that the replica began; of a step's last one, when it has been sampled from.
  void end_slice(int32_t replica_idx, TimePoint end);
  void add_attention(const Work& work);

  // The first that was not as it must be; empty if all was.
  [[nodiscard]] const std::string& violation() const { return violation_; }
  [[nodiscard]] const std::vector<Work>& slices() const { return slices_; }
  [[nodiscard]] const std::vector<Work>& attentions() const { return attentions_; }

 private:
  struct MicroBatch {
    int64_t num_slices = 0;  // that were begun, last slices counted
    TimePoint end{};         // of the last of them; max while it runs
  };

  Rotation rotation_;
  int32_t num_layers_;
  bool keeps_all_;
  std::vector<MicroBatch> batches_;
  std::vector<std::optional<Work>> running_;  // on each replica
  std::vector<Work> slices_;
  std::vector<Work> attentions_;
  std::string violation_;
};

}  // namespace lamina::simulate
