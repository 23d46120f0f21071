// OffloadedBackend: attention of a model worker's rank that attention workers compute, whatever
// carries it there: hosts (RemoteAttention), or the devices themselves (DeviceAttention).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kv/kv_partition.h"
#include "transport/endpoint.h"
#include "wire/messages.h"
#include "worker/attention_backend.h"

namespace lamina {

// The holder of a tile.
struct AttentionPeer {
  std::string name;       // for messages
  size_t worker_idx = 0;  // the caller's own
  HeadRange kv_heads;
  BlockRange blocks;
  std::unique_ptr<Endpoint> endpoint;
};

// Of one peer, or of several together.
struct WireStats {
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
};

class OffloadedBackend : public AttentionBackend {
 public:
  // From any thread: every wait ends with kUnavailable, at the peers too. The session cannot be
  // used again.
  void abort();
  // Of the peers of that name; zeros if there is none. From any thread.
  [[nodiscard]] WireStats wire_stats_of(std::string_view peer_name) const;

 protected:
  explicit OffloadedBackend(std::vector<AttentionPeer> peers);

  // Written by the backend's thread.
  struct PeerStats {
    std::atomic<uint64_t> bytes_sent{0};
    std::atomic<uint64_t> bytes_received{0};
  };

  [[nodiscard]] std::span<const AttentionPeer> peers() const { return peers_; }
  [[nodiscard]] PeerStats& stats(size_t peer_idx) { return stats_[peer_idx]; }
  [[nodiscard]] std::vector<BlockRange> blocks_of_peers() const;
  // To a peer's host, of a session with that epoch.
  Status send_plan(size_t peer_idx,
                   const wire::AttentionPlan& plan,
                   uint64_t epoch,
                   int32_t num_layers);
  // `status` with the peer's name before it.
  [[nodiscard]] Status about(size_t peer_idx, const Status& status) const;

 private:
  std::vector<AttentionPeer> peers_;
  std::vector<PeerStats> stats_;
  std::vector<std::byte> encoded_plan_;
};

}  // namespace lamina
