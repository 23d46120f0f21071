// RemoteAttention: the model worker's side of offloaded attention under a head split. Sends each
// step's plan and each layer's q, k and v to the attention workers, each the heads it owns, and
// joins their outputs. Confined to one thread, but for abort().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "kv/head_partition.h"
#include "transport/endpoint.h"
#include "wire/messages.h"
#include "worker/attention_backend.h"

namespace lamina {

// An attention worker of the session.
struct AttentionPeer {
  std::string name;  // for messages
  HeadRange kv_heads;
  std::unique_ptr<Endpoint> endpoint;
};

struct RemoteAttentionConfig {
  uint64_t epoch = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;  // of the model
  int32_t num_kv_heads = 0;
  bool latent = false;         // k alone is sent
  DType dtype = DType::kBF16;  // of q, k, v and out on the wire
  // How long one layer's attention may take. Death and hanging of a worker are noticed sooner, by
  // its heartbeat: then abort() ends the wait. This bounds what heartbeats cannot see.
  Duration reply_timeout = std::chrono::seconds(60);
  WaitPolicy wait;
};

struct WireStats {
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
};

class RemoteAttention final : public AttentionBackend {
 public:
  // The peers' head ranges cover all KV heads in order.
  RemoteAttention(const RemoteAttentionConfig& config, std::vector<AttentionPeer> peers);

  Status begin_step(const StepPlan& plan) override;
  Status send_q(int32_t attention_idx, TensorView q) override;
  Status send_kv(int32_t attention_idx, TensorView k, TensorView v) override;
  Status receive(int32_t attention_idx, TensorView out) override;

  // From any thread: every wait ends with kUnavailable. The session cannot be used again.
  void abort();
  // Of the peer of that name; zeros if there is none.
  [[nodiscard]] WireStats wire_stats_of(std::string_view peer_name) const;

 private:
  [[nodiscard]] HeadRange query_heads(const AttentionPeer& peer) const;
  [[nodiscard]] wire::MessageHeader header(wire::MessageKind kind,
                                           int32_t layer,
                                           int64_t rows) const;
  Status send_tensors(size_t peer_idx,
                      wire::MessageKind kind,
                      int32_t layer,
                      std::span<const TensorView> parts);
  [[nodiscard]] uint64_t expected_seq(uint32_t layer) const;
  Status wait_for(size_t peer_idx, SlotIdx slot, uint64_t seq);
  Status receive_from(size_t peer_idx, int32_t layer, TensorView out);
  [[nodiscard]] Status about(size_t peer_idx, const Status& status) const;

  RemoteAttentionConfig config_;
  std::vector<AttentionPeer> peers_;
  std::vector<WireStats> wire_stats_;
  wire::AttentionPlan plan_;
  std::vector<std::byte> encoded_plan_;
  uint64_t step_ = 0;
  int64_t num_tokens_ = 0;
};

}  // namespace lamina
