// AttentionService: joins the control plane to an attention worker: opens and ends sessions as the
// engine asks, each with its KV cache, endpoint and thread. Called on the control server's threads.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "control/attention_control.h"
#include "device/stream.h"
#include "transport/endpoint.h"
#include "worker/attention_worker.h"

namespace lamina::app {

struct AttentionServiceConfig {
  uint64_t kv_memory_bytes = 0;
  double kv_bytes_per_second = 0;       // as measured; 0: not
  std::string data_host = "127.0.0.1";  // where tcp endpoints listen
};

// Adds one part's counters to its session's. Steps and tokens are the same in all parts; progress
// is that of the part in a step that has been without it for longest.
void add_stats(const TileWorkerStats& part, control::WorkerStats& stats);

class AttentionService final : public control::AttentionControlHandler {
 public:
  // What `stream` is of, a pool or a GPU's stream, outlives this.
  AttentionService(const AttentionServiceConfig& config, StreamView stream);
  AttentionService(const AttentionService&) = delete;
  AttentionService& operator=(const AttentionService&) = delete;
  ~AttentionService() override;

  control::WorkerInfo describe() override;
  Result<std::vector<std::string>> configure(const control::SessionConfig& config) override;
  control::WorkerStats heartbeat() override;
  void end_session(uint64_t epoch, control::SessionEnd reason) override;

 private:
  // A tile and its data connections; endpoints and worker are set by the session's thread, guarded
  // by mutex_.
  struct Part {
    std::vector<std::unique_ptr<PendingEndpoint>> pending;  // by model replica
    std::vector<std::unique_ptr<Endpoint>> endpoints;
    std::unique_ptr<TileWorker> worker;
  };
  // `thread` uses the others and is joined before they go.
  struct Session {
    control::SessionConfig config;
    std::vector<Part> parts;
    control::WorkerState state = control::WorkerState::kStarting;  // guarded by mutex_
    std::string failure;                                           // guarded by mutex_
    std::atomic<bool> should_stop{false};
    std::thread thread;
  };

  [[nodiscard]] Status check_memory(const control::SessionConfig& config) const;
  [[nodiscard]] EndpointConfig endpoint_config(const control::SessionConfig& config,
                                               const control::SessionPart& part) const;
  [[nodiscard]] std::unique_ptr<TileWorker> make_worker(const AttentionWorkerConfig& config,
                                                        std::vector<Endpoint*> replicas) const;
  void start_parts(Session& session);
  void run_session(Session& session);
  void stop_session();

  AttentionServiceConfig config_;
  StreamView stream_;
  std::mutex mutex_;
  std::unique_ptr<Session>
      session_;  // replaced only by configure() and end_session(), which never overlap
};

}  // namespace lamina::app
