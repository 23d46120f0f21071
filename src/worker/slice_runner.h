// SliceRunner: what a model replica runs its slices on, for several micro-batches in turn.
// RankGroup is the real one; a simulator brings its own. Confined to one thread.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "exec/slice_executor.h"
#include "worker/attention_backend.h"

namespace lamina {

class SliceRunner {
 public:
  virtual ~SliceRunner() = default;

  [[nodiscard]] virtual int32_t num_slices() const = 0;
  [[nodiscard]] virtual int32_t num_ranks() const = 0;
  // Starts a step of a micro-batch.
  virtual Status begin(int32_t micro_batch, const StepInputs& inputs) = 0;
  // Rows of the step's values: its tokens, and padding.
  [[nodiscard]] virtual int64_t num_rows(int32_t micro_batch) const = 0;
  // Runs slices of some micro-batches in turn, attention of rank r through attention[r]. Waits for
  // its output before each slice, where it is not there yet and the backend has no launch shape. Of
  // runs with a stride attention hands carried values on, too.
  virtual Status run_slices(std::span<const SliceRun> runs,
                            std::span<AttentionBackend* const> attention) = 0;
  // [S, V] f32 after a last slice, writable, valid until the next slice.
  [[nodiscard]] virtual TensorView logits() const = 0;

  // After what was made of the logits was waited for: an error if an exchange was given up since
  // their slice was run, since they hold anything then.
  [[nodiscard]] virtual Status check_exchanges() { return {}; }

  // What slice `slice_idx` + 1 and later ones need of it and of earlier ones, as bytes: packed
  // after that slice, unpacked before the next by the replica that runs it.
  [[nodiscard]] virtual size_t carried_bytes(int32_t micro_batch, int32_t slice_idx) const = 0;
  virtual void pack_carried(int32_t micro_batch,
                            int32_t slice_idx,
                            std::span<std::byte> to) const = 0;
  virtual void unpack_carried(int32_t micro_batch,
                              int32_t slice_idx,
                              std::span<const std::byte> from) = 0;
  // An upper bound for carried_bytes().
  [[nodiscard]] virtual size_t max_carried_bytes() const = 0;
};

}  // namespace lamina
