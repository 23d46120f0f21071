// AttentionWorker: serves one session's steps: plan, then for each layer q, then k and v, then the
// output; for several micro-batches at a time, each in its own step. It has an endpoint to each
// replica of the model: those who run slices take turns (plan/rotation.h), so q of a layer comes
// from one and its output may go to the next.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "plan/rotation.h"
#include "transport/wait_any.h"
#include "wire/messages.h"
#include "worker/attention_core.h"
#include "worker/plan_receiver.h"
#include "worker/tile_worker.h"

namespace lamina {

struct AttentionWorkerConfig {
  AttentionCoreConfig core;
  uint64_t epoch = 0;
  DType dtype = DType::kBF16;  // of q, k, v and whole outputs on the wire
  int32_t total_blocks = 0;    // of the session, over all workers; 0: this one has them all
  int32_t num_replicas = 1;

  [[nodiscard]] PlanReceiverConfig plans() const;
};

class AttentionWorker final : public TileWorker {
 public:
  // `replicas` lead to the replicas of the model and outlive the worker. `clock` stamps outputs and
  // statistics. Throws what AttentionCore throws.
  AttentionWorker(const AttentionWorkerConfig& config,
                  std::vector<Endpoint*> replicas,
                  StreamView stream,
                  const Clock& clock = steady_clock());
  // `core` was made of config.core.
  AttentionWorker(const AttentionWorkerConfig& config,
                  std::vector<Endpoint*> replicas,
                  std::unique_ptr<AttentionCore> core,
                  const Clock& clock = steady_clock());

  // Handles one message, if there is one. What is nearest to an output comes first.
  Result<bool> step() override;
  void add_awaited(std::vector<AwaitedMessage>& awaited) const override;

 private:
  enum class State : uint8_t { kPlan, kQ, kKv };
  // Where a micro-batch stands: what it waits for, of which step and layer.
  struct MicroBatch {
    State state = State::kPlan;
    uint32_t layer = 0;
    int32_t first_replica = 0;             // where the step's plan came from
    std::span<const std::byte> q_payload;  // validated, in its slot
    bool was_idle_for_q = false;           // nothing to do when q came
    TimePoint begin{};                     // of the layer's attention
    Duration cached{};                     // spent on the cached keys before k and v were there
  };

  void note_progress();
  // q, or k and v.
  [[nodiscard]] AwaitedMessage tensors_of(uint32_t micro_batch) const;
  [[nodiscard]] Endpoint& replica_of(uint32_t micro_batch, uint32_t slice_idx) const;
  Result<std::optional<std::span<const std::byte>>> find_message(uint32_t micro_batch);
  Result<bool> step_in(State state);
  Status handle(uint32_t micro_batch, std::span<const std::byte> message);
  Status handle_plan(uint32_t micro_batch, std::span<const std::byte> message);
  Status handle_q(uint32_t micro_batch, std::span<const std::byte> message);
  Status handle_kv(uint32_t micro_batch, std::span<const std::byte> message);
  void end_layer(MicroBatch& batch, int32_t num_tokens);
  // Validates a tensor message and gives its payload.
  Result<std::span<const std::byte>> tensor_payload(uint32_t micro_batch,
                                                    std::span<const std::byte> message,
                                                    wire::MessageKind kind,
                                                    int32_t num_rows,
                                                    size_t row_bytes) const;
  // `resumed`: when it went back to work on the layer.
  Status reply(uint32_t micro_batch, TimePoint resumed);
  void refuse(uint32_t micro_batch, const Status& reason);
  [[nodiscard]] wire::MessageHeader reply_header(uint32_t micro_batch) const;
  [[nodiscard]] TensorView q_tensor(uint32_t micro_batch) const;
  [[nodiscard]] size_t row_bytes(int32_t num_heads, int32_t width) const;

  AttentionWorkerConfig config_;
  Rotation rotation_;
  std::vector<Endpoint*> replicas_;
  const Clock* clock_;
  std::unique_ptr<AttentionCore> core_;
  PlanReceiver plans_;
  wire::AttentionPlan plan_;
  std::vector<MicroBatch> micro_batches_;
  uint32_t next_batch_ = 0;   // whose turn it is where several are ready
  uint32_t num_in_step_ = 0;  // micro-batches between plan and last output
  bool is_idle_ = false;      // the last step() found nothing to do
};

}  // namespace lamina
