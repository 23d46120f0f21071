// Collective: what the ranks of a tensor-parallel group exchange: each gives every other one the
// same bytes and gets theirs. Sums and gathers are made of it (exec/). Built on endpoints, so ranks
// may be threads (loopback), processes of one host (shm) or hosts (tcp). Every rank must make the
// same calls in the same order. Confined to one thread, but for abort().
//
// Each rank's bytes go to all others directly: the fewest steps, which is what counts for the few
// kilobytes of a decode step and the few ranks of a host.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "transport/endpoint.h"

namespace lamina {

class Collective {
 public:
  // peers[r] leads to rank r; null at this rank's own place.
  Collective(int32_t rank, std::vector<std::unique_ptr<Endpoint>> peers, Duration timeout);

  // Sends `mine` and waits for the others: all()[r] is then what rank r sent, valid until the next
  // call; all()[rank] is `mine`. Everybody's size must be the same. kDeadlineExceeded,
  // kUnavailable, or kDataLoss for another size; the group cannot be used again then.
  Status exchange(std::span<const std::byte> mine);
  [[nodiscard]] std::span<const std::span<const std::byte>> all() const { return all_; }

  [[nodiscard]] int32_t rank() const { return rank_; }
  [[nodiscard]] int32_t num_ranks() const { return static_cast<int32_t>(peers_.size()); }
  [[nodiscard]] uint64_t bytes_sent() const { return bytes_sent_; }
  // From any thread: every current and later exchange ends with kUnavailable.
  void abort();

 private:
  int32_t rank_;
  std::vector<std::unique_ptr<Endpoint>> peers_;
  Duration timeout_;
  uint64_t num_exchanges_ = 0;
  uint64_t bytes_sent_ = 0;
  std::vector<std::span<const std::byte>> all_;
};

struct GroupConfig {
  TransportKind kind = TransportKind::kLoopback;
  int32_t rank = 0;
  int32_t num_ranks = 1;
  size_t max_bytes = 0;                         // of one exchange, per rank
  uint64_t epoch = 1;                           // of the group; old ones are refused
  std::string host = "127.0.0.1";               // tcp: where the lower rank of a pair listens
  Duration timeout = std::chrono::seconds(60);  // of one exchange
};

// One rank's side of a group being set up, as PendingEndpoint: its blob for each other rank travels
// there, and it completes with theirs.
class PendingGroup {
 public:
  // Throws as prepare_endpoint().
  explicit PendingGroup(const GroupConfig& config);

  // What rank `peer` needs from us.
  [[nodiscard]] const std::string& blob_for(int32_t peer) const;
  // blobs[r]: what rank r has for us. Consumes this object. Throws as PendingEndpoint::complete().
  std::unique_ptr<Collective> complete(std::span<const std::string> blobs, Deadline deadline);

 private:
  GroupConfig config_;
  std::vector<std::unique_ptr<PendingEndpoint>> pending_;  // by rank
};

// All ranks of a group whose ranks are threads of this process.
std::vector<std::unique_ptr<Collective>> connect_threads(int32_t num_ranks,
                                                         size_t max_bytes,
                                                         Duration timeout);

}  // namespace lamina
