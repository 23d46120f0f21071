#include "simulate/pipeline_record.h"

#include <fmt/format.h>

namespace lamina::simulate {

PipelineRecord::PipelineRecord(Rotation rotation, int32_t num_layers, bool keeps_all)
    : rotation_(rotation),
      num_layers_(num_layers),
      keeps_all_(keeps_all),
      batches_(static_cast<size_t>(rotation.num_micro_batches)),
      running_(static_cast<size_t>(rotation.num_replicas)) {}

void PipelineRecord::begin_slice(const Work& work, int64_t step, int32_t slice_idx) {
  MicroBatch& batch = batches_[static_cast<size_t>(work.micro_batch)];
  std::optional<Work>& running = running_[static_cast<size_t>(work.worker_idx)];
  const int64_t counted = step * num_layers_ + slice_idx;
  const int64_t turn =
      (work.micro_batch + counted * rotation_.num_micro_batches) % rotation_.num_replicas;
  const char* what = nullptr;
  if (step * (num_layers_ + 1) + slice_idx != batch.num_slices) what = "out of order";
  if (work.begin < batch.end) what = "before the one before it had ended";
  if (running) what = "while it ran another";
  if (turn != work.worker_idx) what = "out of turn";
  if (what != nullptr && violation_.empty()) {
    violation_ = fmt::format("replica {} ran slice {} of step {} of micro-batch {} {}",
                             work.worker_idx,
                             slice_idx,
                             step,
                             work.micro_batch,
                             what);
  }
  ++batch.num_slices;
  batch.end = TimePoint::max();
  running = work;
  running->slice = counted;
}

void PipelineRecord::end_slice(int32_t replica_idx, TimePoint end) {
  std::optional<Work>& running = running_[static_cast<size_t>(replica_idx)];
  if (!running) {
    if (violation_.empty()) violation_ = fmt::format("replica {} ends no slice", replica_idx);
    return;
  }
  running->end = end;
  batches_[static_cast<size_t>(running->micro_batch)].end = end;
  if (keeps_all_) slices_.push_back(*running);
  running.reset();
}

void PipelineRecord::add_attention(const Work& work) {
  if (keeps_all_) attentions_.push_back(work);
}

}  // namespace lamina::simulate
