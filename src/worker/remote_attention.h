// RemoteAttention: the model worker's side of offloaded attention. Sends each step's plan and each
// layer's q, k and v to the attention workers, each what concerns its tile of the KV partition, and
// joins their outputs. Messages lie in memory of the hosts. Confined to one thread, but for
// abort().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/trace.h"
#include "plan/rotation.h"
#include "transport/endpoint.h"
#include "wire/messages.h"
#include "worker/clock_shift.h"
#include "worker/offloaded_backend.h"
#include "worker/partial_merge.h"
#include "worker/pipeline_meter.h"
#include "worker/step_partitioner.h"

namespace lamina {

struct RemoteAttentionConfig {
  uint64_t epoch = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;  // of the model, or of this tensor-parallel rank
  int32_t num_kv_heads = 0;
  int32_t value_dim = 0;
  bool latent = false;         // k alone is sent
  DType dtype = DType::kBF16;  // of q, k, v on the wire, and of out where one worker finishes it
  int32_t block_size = 16;
  int32_t max_sequences = 0;
  int32_t max_tokens = 0;  // of a step
  Rotation rotation;
  int32_t replica_idx = 0;                     // of the replica that this is part of
  std::vector<std::vector<float>> sinks = {};  // of each layer [num_heads], or none at all
  // How long one layer's attention may take. Death and hanging of a worker are noticed sooner, by
  // its heartbeat: then abort() ends the wait. This bounds what heartbeats cannot see.
  Duration reply_timeout = std::chrono::seconds(60);
  WaitPolicy wait;
  PipelineMeter* meter = nullptr;  // or none
  // Or none; with a row for each peer and each replica, and a meter.
  TraceWriter* trace = nullptr;
  std::vector<TraceRow> trace_rows = {};
  std::vector<TraceRow> trace_replicas = {};
};

class RemoteAttention final : public OffloadedBackend {
 public:
  // The peers' tiles cover all KV heads and blocks. `stream` merges partial outputs.
  RemoteAttention(const RemoteAttentionConfig& config,
                  std::vector<AttentionPeer> peers,
                  StreamView stream);

  Status begin_step(int32_t micro_batch, const StepStart& start, const StepPlan& plan) override;
  Status send_q(int32_t micro_batch, int32_t attention_idx, TensorView q) override;
  Status send_kv(int32_t micro_batch, int32_t attention_idx, TensorView k, TensorView v) override;
  Status receive(int32_t micro_batch, int32_t attention_idx, TensorView out) override;
  Result<bool> has_output(int32_t micro_batch, int32_t attention_idx) override;
  void add_awaited(int32_t micro_batch,
                   int32_t attention_idx,
                   std::vector<AwaitedMessage>& awaited) const override;
  void send_unsent() override;
  void add_unsent_messages(std::vector<AwaitedMessage>& awaited) const override;

  // What a worker says of a layer's attention, by its clock.
  struct WorkTimes {
    TimePoint begin{};
    Duration cached{};
    Duration gap{};
    Duration rest{};

    [[nodiscard]] TimePoint end() const { return begin + cached + gap + rest; }
  };

 private:
  struct MicroBatch {
    std::vector<TileStep> parts;  // by peer
    int64_t num_tokens = 0;
    int32_t first_replica = 0;
    bool is_decoding = false;
    bool has_partials = false;
    // Of the layer whose outputs come in, by worker: its time, and what of it came after k and v.
    std::vector<Duration> busy;
    std::vector<Duration> rest;
    uint8_t idle_flags = 0;  // that all of them set
    // When this replica, with nothing else to do, saw that all outputs were there.
    std::optional<TimePoint> outputs_seen;
    std::optional<uint64_t> polled_at;  // num_calls_ when they were last found missing
  };
  // A message to or from a peer: a layer of a micro-batch's step.
  struct Place {
    size_t peer_idx = 0;
    int32_t micro_batch = 0;
    int32_t layer = 0;
  };

  [[nodiscard]] HeadRange query_heads(size_t peer_idx) const;
  [[nodiscard]] const TileStep& part_of(const Place& place) const;
  [[nodiscard]] uint64_t sequence_number(const Place& place) const;
  Status send_rows(const Place& place,
                   wire::MessageKind kind,
                   std::span<const RowRange> rows,
                   std::span<const TensorView> tensors);
  [[nodiscard]] AwaitedMessage output_of(const Place& place) const;
  Status receive_from(const Place& place, TensorView out);
  Result<std::span<const std::byte>> receive_payload(const Place& place, DType dtype, size_t bytes);
  Status receive_whole(const Place& place, TensorView out);
  Status receive_partial(const Place& place);
  void note_times(int32_t micro_batch, int32_t layer);
  [[nodiscard]] std::optional<SendTimes> sends_of(int32_t micro_batch, int32_t layer) const;
  void trace(const Place& place, const WorkTimes& times);
  void store_merged(const MicroBatch& step, TensorView out) const;
  [[nodiscard]] int32_t sender_of(const Place& place) const;

  RemoteAttentionConfig config_;
  std::vector<ClockShift> clocks_;  // of each peer
  StepPartitioner partitioner_;
  std::optional<PartialMerge> merge_;  // where a tile lacks blocks
  size_t num_workers_ = 0;
  uint64_t num_calls_ = 0;  // of send_q() and receive(): every slice makes one
  std::vector<MicroBatch> micro_batches_;
};

}  // namespace lamina
