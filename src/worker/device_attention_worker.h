// DeviceAttentionWorker: an attention worker's end of DeviceAttention. A plan is all that its host
// is told of a step. On a GPU it brings block tables and lengths there and enqueues all layers,
// each of which waits for q, k and v, appends, attends and sends the output by itself; decoding
// steps are captured, once for each number of rows and turn of replicas. Steps of a group are
// enqueued together, on one stream, in the order in which the model runs their slices: an output
// never waits for a GPU that is full of another micro-batch's attention. On a CPU the thread polls
// for the next layer of each micro-batch while steps are under way. Replicas of the model take
// turns as with AttentionWorker. Confined to one thread, but for stats.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "device/gpu_stream.h"
#include "exec/slice_graphs.h"
#include "transport/device_link.h"
#include "worker/attention_worker.h"
#include "worker/plan_receiver.h"
#include "worker/tile_worker.h"

namespace lamina {

class DeviceAttentionWorker final : public TileWorker {
 public:
  // `replicas` lead to the rank of the model's replicas and outlive this; each has a device link.
  // `stream`: the pool that computes, or names the GPU, where the worker has a stream of its own:
  // tiles wait for each other by way of the model. Throws what AttentionCore throws; kUnimplemented
  // for rows that devices do not send.
  DeviceAttentionWorker(const AttentionWorkerConfig& config,
                        std::vector<Endpoint*> replicas,
                        StreamView stream);
  // Ends what waits, and waits for the stream.
  ~DeviceAttentionWorker() override;

  // Begins a step, or notices that one has ended.
  Result<bool> step() override;
  void add_awaited(std::vector<AwaitedMessage>& awaited) const override;

 private:
  struct MicroBatch {
    std::unique_ptr<DeviceChannel> channel;  // its links are the replicas'
    // Of a layer; layers follow each other.
    Buffer q;
    Buffer k;
    Buffer v;
    Buffer out;
    int32_t first_replica = 0;  // of the step: where its plan came from
    int32_t num_tokens = 0;
    int64_t num_rows = 0;  // of its tensors
    bool is_decoding = false;
    bool is_under_way = false;
    int32_t next_layer = 0;  // on a CPU
  };

  // Of a layer: what attention writes, and what is sent of it.
  struct Output {
    TensorView rows;
    TensorView lse;  // of a partial
    TensorView message;
  };

  [[nodiscard]] MicroBatch& batch(uint32_t idx) { return batches_[idx]; }
  [[nodiscard]] bool is_on_gpu() const { return gpu_stream_ != nullptr; }
  Result<bool> end_steps();
  Result<bool> run_next_layer();
  [[nodiscard]] bool has_begun(uint32_t micro_batch) const;
  void end_step(MicroBatch& batch);
  Result<bool> begin_step(uint32_t micro_batch);
  Status begin_step(uint32_t micro_batch, const PlanReceiver::Arrival& plan);
  // The link of who runs a slice: from there comes what it sends to attention, there goes what it
  // waits for.
  [[nodiscard]] size_t link_of(const MicroBatch& step, int32_t slice_idx) const;
  Status run_group();
  Status run_layers();
  [[nodiscard]] std::optional<SliceGraphs::Key> key_of_group() const;
  Status end_layers(uint32_t micro_batch);
  Status run_layer(uint32_t micro_batch, int32_t layer);
  Status check_waits() const;
  void make_batches();
  void count_bytes(int64_t num_rows);
  [[nodiscard]] Buffer for_rows(int64_t width) const;
  [[nodiscard]] size_t out_bytes(int64_t num_rows) const;
  [[nodiscard]] Output output_of(const MicroBatch& step) const;

  AttentionWorkerConfig config_;
  Rotation rotation_;
  std::vector<Endpoint*> replicas_;
  std::unique_ptr<GpuStream> gpu_stream_;  // on a GPU
  StreamView stream_;
  AttentionCore core_;
  PlanReceiver plans_;
  wire::AttentionPlan plan_;
  std::vector<MicroBatch> batches_;
  std::vector<uint32_t> group_;  // micro-batches of the group that begins, on a GPU
  SliceGraphs graphs_;
  uint32_t num_vain_looks_ = 0;  // for layers, in a row, on a CPU
};

}  // namespace lamina
