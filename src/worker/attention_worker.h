// AttentionWorker: serves one session's steps over an endpoint: plan, then for each layer q, then k
// and v, then the output back. A state machine fed by readiness: advance() does whatever can be
// done without waiting and says what it waits for, so that a simulator can run it on a virtual
// clock; only serve() waits. Confined to one thread, but for stats.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "base/result.h"
#include "device/buffer.h"
#include "transport/endpoint.h"
#include "wire/messages.h"
#include "worker/attention_core.h"

namespace lamina {

struct AttentionWorkerConfig {
  AttentionCoreConfig core;
  uint64_t epoch = 0;
  DType dtype = DType::kBF16;  // of q, k, v and out on the wire
};

// Written by the worker's thread, read by the heartbeat's.
struct AttentionWorkerStats {
  std::atomic<uint64_t> num_steps{0};
  std::atomic<uint64_t> num_tokens{0};
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> bytes_sent{0};
  std::atomic<int64_t> attention_ns{0};
  std::atomic<int64_t> wait_ns{0};
  std::atomic<int32_t> num_blocks_used{0};
  std::atomic<int64_t> last_progress_ns{0};  // of steady_clock()
  std::atomic<bool> is_in_step{false};
};

class AttentionWorker {
 public:
  // What advance() waits for.
  struct Pending {
    SlotIdx slot = 0;
    uint64_t seq = 0;
  };

  // `endpoint` outlives the worker. Throws what AttentionCore throws.
  AttentionWorker(const AttentionWorkerConfig& config, Endpoint& endpoint, StreamView stream);

  // Handles every message that is there. An error ends the session; it has been reported to the
  // model worker where that was possible.
  Result<Pending> advance();

  // Serves `workers`, the parts of one session, until `should_stop` or an error: advances each,
  // then waits for the one that is furthest behind. The ranks of a model worker meet after every
  // attention, so no other part can get on before that one does. `idle_check` bounds each wait, so
  // that stopping and the other parts' ends are seen.
  static Status serve(std::span<AttentionWorker* const> workers,
                      const std::atomic<bool>& should_stop,
                      WaitPolicy policy,
                      Duration idle_check);
  Status serve(const std::atomic<bool>& should_stop, WaitPolicy policy, Duration idle_check) {
    AttentionWorker* self = this;
    return serve({&self, 1}, should_stop, policy, idle_check);
  }

  [[nodiscard]] const AttentionWorkerStats& stats() const { return stats_; }

 private:
  enum class State : uint8_t { kPlan, kQ, kKv };

  void note_progress();
  Status wait(WaitPolicy policy, Duration most);
  // Messages handled so far, or as good as: grows with each.
  [[nodiscard]] uint64_t progress() const;
  [[nodiscard]] Pending awaited() const;
  Status handle();
  Status handle_plan(std::span<const std::byte> message);
  Status handle_q(std::span<const std::byte> message);
  Status handle_kv(std::span<const std::byte> message);
  // Validates a tensor message and gives its payload.
  Result<std::span<const std::byte>> tensor_payload(std::span<const std::byte> message,
                                                    wire::MessageKind kind,
                                                    size_t expected_bytes) const;
  Status reply(TensorView q);
  void refuse(const Status& reason);
  [[nodiscard]] wire::MessageHeader reply_header() const;
  // The step's rows of a tensor [T, num_heads, width] that lies in `bytes`.
  [[nodiscard]] TensorView tensor(std::span<const std::byte> bytes,
                                  int32_t num_heads,
                                  int32_t width) const;
  [[nodiscard]] TensorView q_tensor(std::span<const std::byte> bytes) const {
    return tensor(bytes, config_.core.num_heads, config_.core.kv.head_dim);
  }

  AttentionWorkerConfig config_;
  Endpoint& endpoint_;
  AttentionCore core_;
  AttentionWorkerStats stats_;
  wire::AttentionPlan plan_;
  std::span<const std::byte> q_payload_;  // validated, in its slot
  State state_ = State::kPlan;
  uint64_t step_ = 1;   // the step awaited or under way
  uint32_t layer_ = 0;  // likewise
};

}  // namespace lamina
