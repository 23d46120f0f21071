// Scenario: everything that a simulation is told: the model, the cluster and its times, what is
// asked of it, and what goes wrong. Plain values; draw_scenario() makes one of a seed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plan/partition.h"
#include "plan/rotation.h"
#include "simulate/fake_model.h"
#include "simulate/fake_runner.h"
#include "transport/sim/sim_link.h"
#include "wire/messages.h"

namespace lamina::simulate {

// Times of requests and of changes count from the start, those of faults from the session's.
struct RequestSpec {
  Duration arrives_after{};
  std::vector<int32_t> prompt;
  int32_t max_tokens = 0;
  std::optional<int32_t> stop_token;  // ends it, as a stop string would
  std::optional<Duration> cancelled_after;
};

enum class FaultKind : uint8_t { kReplicaDies, kAttentionWorkerDies, kLinkDies };

struct Fault {
  FaultKind kind = FaultKind::kReplicaDies;
  size_t idx = 0;  // of the replica, worker or link, modulo their number
  Duration after{};
};

// The first message of a kind from some time on is replaced by one that the session before sent at
// its place (replay_endpoint.h).
struct StaleMessage {
  wire::MessageKind kind = wire::MessageKind::kStep;
  Duration after{};
};

// Scheduler::set_active().
struct ActiveChange {
  Duration after{};
  int32_t num_micro_batches = 1;
};

// The attention workers that one session finds, and what goes wrong in it.
struct SessionSpec {
  PartitionKind partition = PartitionKind::kHead;
  std::vector<double> worker_speeds;  // of each attention worker
  int32_t max_blocks = 0;
  std::vector<Fault> faults;
  std::optional<Duration> rebalanced_after;  // given up for another, as when a worker comes back
  std::optional<StaleMessage> stale_message;
};

struct Scenario {
  uint64_t seed = 0;
  FakeModelConfig model;
  DType kv_dtype = DType::kF32;
  Rotation rotation;
  bool overlap = true;
  int32_t block_size = 16;
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  ComputeTimes times;
  Duration engine_step{};  // planning and sending a step
  Duration reopening{};    // of a session
  SimLinkConfig link;
  std::vector<SessionSpec> sessions;  // one after the other; the last is without faults
  std::vector<RequestSpec> requests;
  std::vector<ActiveChange> active_changes;  // in the order of their times; all are active at first
  bool keeps_work = false;                   // of the first session, in the outcome

  // Tokens of the longest request.
  [[nodiscard]] int32_t max_model_len() const;
  // Blocks of the longest request.
  [[nodiscard]] int32_t min_blocks() const;
  [[nodiscard]] std::string to_string() const;
};

Scenario draw_scenario(uint64_t seed);

}  // namespace lamina::simulate
