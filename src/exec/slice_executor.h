// SliceExecutor: runs the slices of a model on one device, for several micro-batches in turn. It
// owns the activation memory, sized at construction for the largest step, and obeys the slice's
// instructions; the attention between slices is somebody else's, behind AttentionPort. Carried
// values are each micro-batch's own, scratch memory serves whichever slice runs. Confined to one
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "convert/sliced_model.h"
#include "device/buffer.h"
#include "device/stream.h"
#include "exec/memory_plan.h"
#include "exec/slice_graphs.h"
#include "model/weight_store.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace lamina {

// Where q, k and v go and where attention's output comes from: local memory in colocated mode,
// attention workers else; and who runs the slices between those of a run. Views are valid during
// the call only, q until its output is received.
class AttentionPort {
 public:
  virtual ~AttentionPort() = default;
  // q [T, Hq, D] of attention `attention_idx`, rotary embedding applied.
  virtual Status send_q(int32_t attention_idx, TensorView q) = 0;
  // k, v [T, Hkv, D].
  virtual Status send_kv(int32_t attention_idx, TensorView k, TensorView v) = 0;
  // Fills out [T, Hq, D]. Blocks until it is there.
  virtual Status receive(int32_t attention_idx, TensorView out) = 0;
  // Of a port of a GPU whose calls only enqueue on the executor's stream: what tells its launches
  // in this step from those in another of as many rows. The calls of steps that agree in both are
  // captured once and replayed. None: every call is made.
  [[nodiscard]] virtual std::optional<uint64_t> launch_shape() const { return std::nullopt; }
  // Of runs with a stride: the values that slice `slice_idx` begins with come from the executor
  // that ran the one before; those that it leaves go to the one that runs the next. Where
  // attention's calls only enqueue, these do.
  virtual Status receive_carried(int32_t /*slice_idx*/, std::span<const TensorView> /*values*/) {
    return unimplemented("a port that hands no values on");
  }
  virtual Status send_carried(int32_t /*slice_idx*/, std::span<const TensorView> /*values*/) {
    return unimplemented("a port that hands no values on");
  }
  // Called between instructions: what a socket did not take at once may leave while we compute.
  virtual void send_unsent() {}
};

// Where a tensor-parallel rank meets the others: each gives all of them the same bytes and gets
// theirs, in memory of the executor's device.
class CollectivePort {
 public:
  virtual ~CollectivePort() = default;
  // Blocks until every rank's bytes are there; all have the same size. On a GPU that is enqueued
  // on the executor's stream, and what graphs were captured with is what later calls are given too.
  virtual Status exchange(std::span<const std::byte> mine) = 0;
  // By rank, what the last exchange brought; valid until the next.
  [[nodiscard]] virtual std::span<const std::span<const std::byte>> all() const = 0;
};

// What the host gives to a step. Spans outlive the step.
struct StepInputs {
  std::span<const int32_t> token_ids;    // [T]
  std::span<const int32_t> positions;    // [T]
  std::span<const int32_t> logits_rows;  // [S], indices into the T tokens
};

// Slices begin, begin + stride, ... below `end` of a micro-batch's step. With a stride other
// executors run those between, and values are handed on through the port.
struct SliceRun {
  int32_t micro_batch = 0;
  int32_t begin = 0;
  int32_t end = 0;
  int32_t stride = 1;

  [[nodiscard]] int32_t count() const {
    return end <= begin ? 0 : (end - begin + stride - 1) / stride;
  }
  [[nodiscard]] bool has(int32_t slice_idx) const {
    return slice_idx >= begin && slice_idx < end && (slice_idx - begin) % stride == 0;
  }
  // Of a run that has slices.
  [[nodiscard]] int32_t last() const { return begin + (count() - 1) * stride; }
  friend bool operator==(const SliceRun&, const SliceRun&) = default;
};

class SliceExecutor {
 public:
  // `model`, `weights` and `collective` outlive the executor. `weights` lie in memory of the
  // stream's device (device_weights.h) and were loaded for
  // `model.graph`: CHECKed but for a weight that is missing, which throws Error kNotFound;
  // kResourceExhausted if memory is short. A model without kAllReduce and kAllGather needs no
  // `collective`.
  SliceExecutor(const SlicedModel& model,
                const WeightStore& weights,
                const StepLimits& limits,
                int32_t num_micro_batches,
                StreamView stream,
                CollectivePort* collective = nullptr);

  // Starts a step of a micro-batch. kInvalidArgument past the limits.
  Status begin(int32_t micro_batch, const StepInputs& inputs);
  // Rows of the step's values: its tokens, and on a GPU's decoding steps padding.
  [[nodiscard]] int64_t num_rows(int32_t micro_batch) const {
    return micro_batches_[static_cast<size_t>(micro_batch)].num_tokens;
  }
  // Runs slice `slice_idx`; a micro-batch's slices are run in order, here or, with the carried
  // values handed on, by executors of the same model elsewhere. An error ends the step.
  Status run_slice(int32_t micro_batch, int32_t slice_idx, AttentionPort& port);
  // Slices of some micro-batches, each with its port, in the order of their indices: of those with
  // the same one the first run's comes first. Where attention's calls only enqueue and all decode,
  // that is one graph.
  Status run_slices(std::span<const SliceRun> runs, std::span<AttentionPort* const> ports);
  [[nodiscard]] int32_t num_slices() const { return static_cast<int32_t>(model_->slices.size()); }
  // Before `collective` starts anew: captured graphs hold on to what it was. Nothing is under way.
  void forget_graphs() { graphs_ = {}; }
  // [S, V] f32 after a last slice, writable, valid until the next slice of any micro-batch.
  [[nodiscard]] TensorView logits() const;
  // Where a micro-batch keeps what slice `slice_idx` + 1 and later ones need of it and of earlier
  // ones: to be read after that slice, or written before the next where another executor ran it.
  [[nodiscard]] std::vector<TensorView> carried(int32_t micro_batch, int32_t slice_idx) const;
  // An upper bound for the bytes of carried(), over all slices.
  [[nodiscard]] size_t max_carried_bytes() const;
  [[nodiscard]] size_t activation_bytes() const;

 private:
  struct MicroBatch {
    Buffer carried;
    StepInputs inputs;
    // Rows of its values: the step's tokens and logits rows. A GPU's decoding steps are padded.
    int64_t num_tokens = 0;
    int64_t num_logits_rows = 0;
    bool is_padded = false;
    // The inputs one after the other, as the device's operators read them, brought there from
    // pinned memory with the first slices that are run here. Not used where the device is the host.
    Buffer staged_inputs;
    Buffer device_inputs;
    bool has_new_inputs = false;
  };

  [[nodiscard]] bool is_on_host() const { return stream_.device().kind == DeviceKind::kCpu; }
  static void stage_inputs(MicroBatch& batch);
  Status bring_inputs(const MicroBatch& batch) const;
  [[nodiscard]] TensorView input_view(const MicroBatch& batch, std::string_view name) const;
  void set_rows(MicroBatch& batch) const;
  [[nodiscard]] std::optional<SliceGraphs::Key> whole_key(
      std::span<const SliceRun> runs, std::span<AttentionPort* const> ports) const;
  Status run_in_turn(std::span<const SliceRun> runs, std::span<AttentionPort* const> ports);
  Status run_one(const SliceRun& run, int32_t slice_idx, AttentionPort& port);
  void note_last(std::span<const SliceRun> runs);
  Status run_between_calls(int32_t micro_batch,
                           std::span<const Instruction> program,
                           AttentionPort& port);
  Status run(std::span<const Instruction> instructions, AttentionPort& port);
  Status run(const Instruction& instruction, AttentionPort& port);
  Status compute(const Node& node);
  Status exchange(const Node& node, TensorView out);
  [[nodiscard]] TensorView view(ValueId value) const { return view(*current_, slice_idx_, value); }
  [[nodiscard]] TensorView view(const MicroBatch& batch, int32_t slice_idx, ValueId value) const;
  [[nodiscard]] const WeightView& weight(const Node& node, size_t index) const {
    return weights_[static_cast<size_t>(node.inputs[index])];
  }
  [[nodiscard]] TensorView input(const Node& node, size_t index) const {
    return view(node.inputs[index]);
  }

  const SlicedModel* model_;
  StepLimits limits_;
  StreamView stream_;
  CollectivePort* collective_;
  MemoryPlan plan_;
  Buffer scratch_;
  std::vector<MicroBatch> micro_batches_;
  std::vector<WeightView> weights_;      // by value id; empty for the rest
  std::vector<TensorView> parts_;        // of an exchange, by rank
  const MicroBatch* current_ = nullptr;  // whose slice runs, or ran last
  int32_t slice_idx_ = 0;                // that slice
  bool padding_is_sent_ = false;         // attention sees the padded rows too
  SliceGraphs graphs_;
};

}  // namespace lamina
