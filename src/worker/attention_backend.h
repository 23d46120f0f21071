// AttentionBackend: attention as a model worker sees it, for several micro-batches at a time, each
// in its own step. LocalAttention is the colocated mode, RemoteAttention the offloaded one,
// DeviceAttention the one that the devices see to by themselves.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "exec/slice_executor.h"
#include "plan/step_plan.h"
#include "transport/wait_any.h"

namespace lamina {

// Where a micro-batch's step begins, and how it looks to those who run it.
struct StepStart {
  int32_t first_replica = 0;  // runs the first slice
  int64_t num_rows = 0;       // of q, k and v: the step's tokens, and padding
  int32_t num_following = 0;  // steps after this one that are run together with it
};

class AttentionBackend {
 public:
  virtual ~AttentionBackend() = default;

  // Before the first slice of a micro-batch's step: on every replica, for all steps in the same
  // order. An error here or in any later call loses the state of every slot.
  virtual Status begin_step(int32_t micro_batch, const StepStart& start, const StepPlan& plan) = 0;
  // As AttentionPort has them; each on the replica that runs the slice. receive() does not block
  // once has_output().
  virtual Status send_q(int32_t micro_batch, int32_t attention_idx, TensorView q) = 0;
  virtual Status send_kv(int32_t micro_batch,
                         int32_t attention_idx,
                         TensorView k,
                         TensorView v) = 0;
  virtual Status receive(int32_t micro_batch, int32_t attention_idx, TensorView out) = 0;
  virtual Result<bool> has_output(int32_t micro_batch, int32_t attention_idx) = 0;
  // Adds the messages that has_output() still lacks.
  virtual void add_awaited(int32_t micro_batch,
                           int32_t attention_idx,
                           std::vector<AwaitedMessage>& awaited) const = 0;
  // Whether these calls only enqueue, of every step: then a replica runs all its slices of the
  // steps that go together at once, and where replicas take turns, what is carried goes this way.
  [[nodiscard]] virtual bool only_enqueues() const { return false; }
  // AttentionPort::launch_shape() of the micro-batch's step.
  [[nodiscard]] virtual std::optional<uint64_t> launch_shape(int32_t /*micro_batch*/) const {
    return std::nullopt;
  }
  // As AttentionPort has them.
  virtual Status receive_carried(int32_t /*micro_batch*/,
                                 int32_t /*slice_idx*/,
                                 std::span<const TensorView> /*values*/) {
    return unimplemented("attention that hands no values on");
  }
  virtual Status send_carried(int32_t /*micro_batch*/,
                              int32_t /*slice_idx*/,
                              std::span<const TensorView> /*values*/) {
    return unimplemented("attention that hands no values on");
  }
  // From any thread: ends what these calls wait for, also what is enqueued and what is to come. The
  // session cannot be used again; its peers are not told.
  virtual void give_up() {}
  // Of a backend of a GPU, once the stream was waited for: why what receive() enqueued has not
  // come, if it has not.
  [[nodiscard]] virtual Status check_received() const { return {}; }
  // Endpoint::send_unsent() of all peers, and add_unsent() of transport/wait_any.h.
  virtual void send_unsent() {}
  virtual void add_unsent_messages(std::vector<AwaitedMessage>& /*awaited*/) const {}
};

// One micro-batch's port to a backend.
class MicroBatchPort : public AttentionPort {
 public:
  MicroBatchPort(AttentionBackend& backend, int32_t micro_batch)
      : backend_(backend), micro_batch_(micro_batch) {}
  Status send_q(int32_t attention_idx, TensorView q) override {
    return backend_.send_q(micro_batch_, attention_idx, q);
  }
  Status send_kv(int32_t attention_idx, TensorView k, TensorView v) override {
    return backend_.send_kv(micro_batch_, attention_idx, k, v);
  }
  Status receive(int32_t attention_idx, TensorView out) override {
    return backend_.receive(micro_batch_, attention_idx, out);
  }
  [[nodiscard]] std::optional<uint64_t> launch_shape() const override {
    return backend_.launch_shape(micro_batch_);
  }
  Status receive_carried(int32_t slice_idx, std::span<const TensorView> values) override {
    return backend_.receive_carried(micro_batch_, slice_idx, values);
  }
  Status send_carried(int32_t slice_idx, std::span<const TensorView> values) override {
    return backend_.send_carried(micro_batch_, slice_idx, values);
  }
  void send_unsent() override { backend_.send_unsent(); }

 private:
  AttentionBackend& backend_;
  int32_t micro_batch_;
};

}  // namespace lamina
