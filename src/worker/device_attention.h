// DeviceAttention: the model worker's side of attention that is offloaded without the hosts: the
// rank's device sends q, k and v to the attention workers' devices by itself, and notices by itself
// when the outputs are there. Hosts say what a step is (plans), once. On a GPU every call but
// begin_step() enqueues and returns, so that a decoding step of all layers is captured as one
// graph; on a CPU calls wait, within the limits of a DeviceChannel. Confined to one thread, but for
// abort().
//
// Workers that share heads, each with blocks of its own, are told of all sequences and given all
// rows, and the device merges their partials as they come: what is launched does not depend on
// where a sequence's blocks lie.
//
// Where replicas of the model take turns (plan/rotation.h), each has one of these, for the layers
// whose turn is its own; the carried values go from one's device to the next one's in the same way.
#pragma once

#include <memory>
#include <vector>

#include "plan/rotation.h"
#include "transport/device_link.h"
#include "wire/slots.h"
#include "worker/device_transfers.h"
#include "worker/offloaded_backend.h"
#include "worker/replica_slots.h"
#include "worker/step_partitioner.h"

namespace lamina {

struct DeviceAttentionConfig {
  uint64_t epoch = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;  // of the model, or of this tensor-parallel rank
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;  // of q and k
  int32_t value_dim = 0;
  bool latent = false;         // k alone is sent
  DType dtype = DType::kBF16;  // of q, k, v and out
  bool overlap = false;        // q does not wait for k and v
  int32_t block_size = 16;
  int32_t max_sequences = 0;
  Rotation rotation{};
  int32_t replica_idx = 0;
  std::vector<std::vector<float>> sinks = {};  // of each layer [num_heads], or none at all
  // How long a device waits for a layer's attention. A worker's death is noticed sooner, by its
  // socket or its heartbeat; this bounds what those cannot see.
  Duration max_wait = std::chrono::seconds(30);
  // Of a CPU, which has no stream to enqueue on: that the replica runs groups of steps
  // nevertheless, as a GPU does, and waits where those wait. For tests.
  bool in_groups = false;
};

// The same rank of the replicas that hand carried values on to this one, and to which it does. Null
// where replicas take no turns, or hosts hand them on.
struct DeviceNeighbours {
  std::unique_ptr<Endpoint> before;
  std::unique_ptr<Endpoint> after;
  CarriedSlots slots;  // of either
};

class DeviceAttention final : public OffloadedBackend {
 public:
  // The peers' tiles cover all KV heads, their endpoints have a device link. `stream`: of the rank.
  // Throws Error: kUnimplemented for partials of other outputs than f32 and bf16, or from more
  // workers than one launch takes; kUnavailable.
  DeviceAttention(const DeviceAttentionConfig& config,
                  std::vector<AttentionPeer> peers,
                  StreamView stream,
                  DeviceNeighbours neighbours = {});
  DeviceAttention(const DeviceAttention&) = delete;
  DeviceAttention& operator=(const DeviceAttention&) = delete;
  // Ends what waits, and waits for the stream.
  ~DeviceAttention() override;

  Status begin_step(int32_t micro_batch, const StepStart& start, const StepPlan& plan) override;
  // Without overlap q leaves with k and v, which follow in the same slice.
  Status send_q(int32_t micro_batch, int32_t attention_idx, TensorView q) override;
  Status send_kv(int32_t micro_batch, int32_t attention_idx, TensorView k, TensorView v) override;
  Status receive(int32_t micro_batch, int32_t attention_idx, TensorView out) override;
  // On a GPU receive() only enqueues.
  Result<bool> has_output(int32_t micro_batch, int32_t attention_idx) override;
  // Nothing that a thread could sleep on.
  void add_awaited(int32_t /*micro_batch*/,
                   int32_t /*attention_idx*/,
                   std::vector<AwaitedMessage>& /*awaited*/) const override {}
  [[nodiscard]] bool only_enqueues() const override { return is_on_gpu() || config_.in_groups; }
  // Launches depend on the number of rows alone.
  [[nodiscard]] std::optional<uint64_t> launch_shape(int32_t micro_batch) const override;
  Status receive_carried(int32_t micro_batch,
                         int32_t slice_idx,
                         std::span<const TensorView> values) override;
  Status send_carried(int32_t micro_batch,
                      int32_t slice_idx,
                      std::span<const TensorView> values) override;
  void give_up() override;
  [[nodiscard]] Status check_received() const override;

 private:
  struct MicroBatch {
    // Its links are the peers', in their order, then the neighbours'. What passes a link in a step
    // is counted from the same number on both sides: all replicas end all steps.
    std::unique_ptr<DeviceChannel> channel;
    std::vector<TileStep> parts;  // by peer
    int32_t first_replica = 0;    // of the step
    int64_t num_rows = 0;         // of its tensors
    TensorView q;                 // of the layer under way
  };

  [[nodiscard]] MicroBatch& batch(int32_t idx) { return batches_[static_cast<size_t>(idx)]; }
  [[nodiscard]] HeadRange query_heads(const AttentionPeer& peer) const;
  [[nodiscard]] static SlotIdx slot_of(wire::DeviceMessage kind,
                                       int32_t micro_batch,
                                       int32_t layer);
  void place_sinks();
  [[nodiscard]] bool is_partial(const AttentionPeer& peer) const {
    return peer.blocks != all_blocks_;
  }
  [[nodiscard]] HeadRange find_shared_heads() const;
  [[nodiscard]] const float* sinks_of(int32_t layer) const;
  [[nodiscard]] size_t out_bytes(const AttentionPeer& peer, int64_t num_rows) const;
  [[nodiscard]] std::vector<DeviceLink*> links() const;
  struct SliceRange {
    int32_t begin = 0;
    int32_t end = 0;
  };
  [[nodiscard]] int32_t num_slices(const MicroBatch& step, const SliceRange& range) const;
  [[nodiscard]] bool is_last(const MicroBatch& step, int32_t slice_idx) const;
  [[nodiscard]] Status end_step(const MicroBatch& step) const;
  [[nodiscard]] static Status failure_of(const MicroBatch& step);
  [[nodiscard]] static Status or_reason(const MicroBatch& step, const Status& received);
  void count_bytes(size_t peer_idx, const MicroBatch& step);
  Status receive_whole(const MicroBatch& step, SlotIdx slot, int32_t layer, TensorView out) const;
  Status receive_merged(const MicroBatch& step, SlotIdx slot, int32_t layer, TensorView out) const;
  Status add_q(DeviceTransfers& transfers, int32_t micro_batch, int32_t layer) const;
  [[nodiscard]] bool is_on_gpu() const { return stream_.device().kind == DeviceKind::kCuda; }

  DeviceAttentionConfig config_;
  StreamView stream_;
  DeviceNeighbours neighbours_;
  BlockRange all_blocks_;
  HeadRange shared_heads_;  // of query heads, from the first to the last that comes as partials
  Buffer sinks_;            // [num_layers, num_heads], where they are merged with
  StepPartitioner partitioner_;
  std::vector<MicroBatch> batches_;
  uint32_t num_vain_looks_ = 0;  // of has_output() in a row, on a CPU
};

}  // namespace lamina
