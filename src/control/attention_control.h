// What an engine and an attention worker say to each other over the control plane, as plain
// structs, and the two interfaces it runs between: AttentionControl, the worker as its engine sees
// it, and AttentionControlHandler, what a worker's program implements. Neither shows gRPC. Steps
// and tensors do not travel here: they take transport/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "transport/endpoint.h"
#include "wire/attention_layer.h"
#include "wire/slots.h"

namespace lamina::control {

// Raised whenever the meaning of a message here or in wire/ changes. Both sides must agree.
inline constexpr uint32_t kProtocolVersion = 4;

// A worker process, before and during a session.
struct WorkerInfo {
  uint32_t protocol_version = kProtocolVersion;  // filled in by the server
  std::string program_version;
  std::string hostname;
  int64_t pid = 0;
  uint64_t incarnation = 0;  // random, new at every start of the process; by the server
  std::string device_name;   // "cpu", or the device's own name
  int32_t num_cores = 0;
  uint64_t kv_memory_bytes = 0;    // what KV blocks may use in all
  double kv_bytes_per_second = 0;  // at which it attends to cached keys; 0: not measured
  uint64_t session_epoch = 0;      // of the live session, 0 without one; by the server

  friend bool operator==(const WorkerInfo&, const WorkerInfo&) = default;
};

// A tile of the session's KV cache: heads of one tensor-parallel rank of the model, by block ids.
// It has a data connection to that rank of each model replica. Head numbers count over all ranks.
struct SessionPart {
  int32_t kv_head_begin = 0;  // KV heads [begin, end)
  int32_t kv_head_end = 0;
  int32_t block_begin = 0;  // block ids [begin, end) of the session's
  int32_t block_end = 0;
  int32_t num_heads = 0;                     // query heads, a multiple of num_kv_heads()
  std::vector<wire::AttentionLayer> layers;  // [num_layers], with values for these heads
  std::vector<std::string> transport_blobs;  // [num_replicas], of PendingEndpoint::blob()

  [[nodiscard]] int32_t num_kv_heads() const { return kv_head_end - kv_head_begin; }
  [[nodiscard]] int32_t num_blocks() const { return block_end - block_begin; }
  friend bool operator==(const SessionPart&, const SessionPart&) = default;
};

// Everything a worker must know to serve one session.
struct SessionConfig {
  uint64_t epoch = 0;       // > 0, and greater than any earlier one of this engine
  uint64_t engine_id = 0;   // random, new at every start of an engine
  std::string engine_name;  // "host:pid" or the like, for the messages of refusals
  uint64_t model_fingerprint = 0;
  int32_t num_layers = 0;           // attention layers
  int32_t model_num_kv_heads = 0;   // of the whole model, over all ranks
  int32_t head_dim = 0;             // of q and k
  int32_t value_dim = 0;            // of v and the output
  bool latent = false;              // values lie in the keys
  int32_t block_size = 16;          // tokens
  int32_t num_blocks = 0;           // over all workers
  DType kv_dtype = DType::kBF16;    // of the cache
  DType wire_dtype = DType::kBF16;  // of q, k, v on the wire
  DType out_dtype = DType::kBF16;   // of the reply
  int32_t max_tokens = 0;           // query tokens of a step
  int32_t max_sequences = 0;
  int32_t max_blocks_per_sequence = 0;
  int32_t num_micro_batches = 1;
  int32_t num_replicas = 1;  // of the model
  bool overlap = true;       // attention starts on cached keys before k and v are there
  TransportKind transport = TransportKind::kTcp;
  int64_t lease_ms = 5000;         // without a heartbeat for this long, the session ends
  std::vector<SessionPart> parts;  // this worker's heads, at least one part; ascending

  // KV heads of all parts.
  [[nodiscard]] int32_t num_kv_heads() const;
  friend bool operator==(const SessionConfig&, const SessionConfig&) = default;
};

// kInvalidArgument, naming field and value, unless each field is in its range and they agree. Both
// sides call it: the client before it sends, the server before its handler sees the config. It
// bounds fields, not memory: the handler compares the cache's size with its budget.
Status validate(const SessionConfig& config);

// The worker's PeerId::id on the data connection of a part, which both sides must agree on: its
// first KV head, plus one.
inline uint64_t worker_peer_id(const SessionPart& part) {
  return static_cast<uint64_t>(part.kv_head_begin) + 1;
}

// What both sides size the slots of a part from; `config` is valid.
wire::SlotGeometry slot_geometry(const SessionConfig& config, const SessionPart& part);

enum class WorkerState : uint8_t {
  kIdle,      // no session
  kStarting,  // configured; the data connection is not up yet
  kServing,
  kFailed,  // `failure` says why; a new session may mend it
};
// "idle", "starting", "serving", "failed".
std::string_view worker_state_name(WorkerState state);

// Counters start at zero in each session.
struct WorkerStats {
  uint64_t incarnation = 0;  // by the server
  uint64_t epoch = 0;        // by the server
  WorkerState state = WorkerState::kIdle;
  std::string failure = {};
  uint64_t num_steps = 0;
  uint64_t num_tokens = 0;
  double attention_seconds = 0;
  double wait_seconds = 0;  // time the worker's loop waited for messages
  uint64_t bytes_received = 0;
  uint64_t bytes_sent = 0;
  int32_t num_blocks_used = 0;
  int32_t num_blocks = 0;
  // Milliseconds since the worker's loop last finished something, and whether it is inside a step:
  // together they show a loop that hangs behind a live RPC thread.
  uint64_t progress_age_ms = 0;
  bool step_in_progress = false;

  friend bool operator==(const WorkerStats&, const WorkerStats&) = default;
};

// One attention worker as its engine sees it. Every call ends within `timeout`, with
// kDeadlineExceeded if need be; kUnavailable when the worker cannot be reached. Implementations may
// be called from any thread.
class AttentionControl {
 public:
  virtual ~AttentionControl() = default;

  // The worker's address, for logs and metrics.
  [[nodiscard]] virtual const std::string& name() const = 0;
  // kFailedPrecondition if it speaks another protocol version.
  virtual Result<WorkerInfo> describe(Duration timeout) = 0;
  // Opens session config.epoch and returns the worker's transport blobs, part after part, of each
  // the replicas in order. An older session of this engine is replaced. kAborted: the epoch is not
  // new; kAlreadyExists: another engine's lease is live; kUnavailable: another session is being
  // opened or ended at this moment.
  virtual Result<std::vector<std::string>> configure(const SessionConfig& config,
                                                     Duration timeout) = 0;
  // Renews the lease. kFailedPrecondition: the worker has no session (it restarted, or the lease
  // ran out); kAborted: it has another one.
  virtual Result<WorkerStats> heartbeat(uint64_t epoch, Duration timeout) = 0;
  // Codes as heartbeat().
  virtual Status end_session(uint64_t epoch, Duration timeout) = 0;
};

enum class SessionEnd : uint8_t { kRequested, kReplaced, kLeaseExpired, kServerStopped };
// "requested by the engine", ...
std::string_view session_end_name(SessionEnd reason);

// What a worker's program does with the calls. They come on the server's threads: describe() and
// heartbeat() concurrently with everything, so they must return at once and not wait for the
// worker's loop; configure() and end_session() one at a time, strictly in turn: each successful
// configure() is followed by exactly one end_session() before the next configure(). A thrown Error
// is sent as its Status.
class AttentionControlHandler {
 public:
  virtual ~AttentionControlHandler() = default;

  virtual WorkerInfo describe() = 0;
  // `config` is valid, its epoch new. Returns this side's transport blobs in configure()'s order;
  // the data connections are completed after this returns, since the engine waits for the reply.
  virtual Result<std::vector<std::string>> configure(const SessionConfig& config) = 0;
  virtual WorkerStats heartbeat() = 0;
  // Returns once nothing of the session runs any more; its memory may go.
  virtual void end_session(uint64_t epoch, SessionEnd reason) = 0;
};

}  // namespace lamina::control
