// Test doubles of the control plane: a valid session, a handler that records what it is told, an
// AttentionControl driven by a script. Tests only.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "control/attention_control.h"

namespace lamina::control {

// Every field differs from its default, and from the others where their types allow.
inline SessionConfig make_session_config(uint64_t epoch = 1, uint64_t engine_id = 77) {
  return {.epoch = epoch,
          .engine_id = engine_id,
          .engine_name = "engine-" + std::to_string(engine_id),
          .model_fingerprint = 0xFEDCBA9876543210ULL,
          .num_layers = 2,
          .model_num_kv_heads = 5,
          .head_dim = 64,
          .value_dim = 64,
          .block_size = 32,
          .num_blocks = 1000,
          .kv_dtype = DType::kF16,
          .wire_dtype = DType::kF32,
          .out_dtype = DType::kBF16,
          .max_tokens = 512,
          .max_sequences = 24,
          .max_blocks_per_sequence = 128,
          .num_micro_batches = 3,
          .num_replicas = 2,
          .overlap = false,
          .transport = TransportKind::kShm,
          .lease_ms = 60000,
          .parts = {{.kv_head_begin = 1,
                     .kv_head_end = 2,
                     .block_begin = 250,
                     .block_end = 1000,
                     .num_heads = 3,
                     .layers = {{.scale = 0.25F, .sinks = {1.0F, 2.0F, 3.0F}}, {.scale = 0.5F}},
                     .transport_blobs = {"another", "one"}},
                    {.kv_head_begin = 2,
                     .kv_head_end = 5,
                     .block_begin = 0,
                     .block_end = 1000,
                     .num_heads = 9,
                     .layers = {{.scale = 0.125F, .alibi_slopes = std::vector<float>(9, 0.5F)},
                                {.scale = 0.5F, .window = 4096, .soft_cap = 30.0F}},
                     .transport_blobs = {std::string("blob\0\xFF of the engine", 20), ""}}}};
}

inline WorkerInfo make_worker_info() {
  return {.program_version = "0.1.0-test",
          .hostname = "some-host",
          .pid = 4242,
          .incarnation = 11,
          .device_name = "cpu",
          .num_cores = 8,
          .kv_memory_bytes = uint64_t{1} << 40,
          .kv_bytes_per_second = 2.5e10};
}

inline WorkerStats make_worker_stats() {
  return {.incarnation = 11,
          .epoch = 1,
          .state = WorkerState::kServing,
          .failure = "not UTF-8: \xFF",
          .num_steps = 1,
          .num_tokens = 2,
          .attention_seconds = 0.25,
          .wait_seconds = 0.75,
          .bytes_received = uint64_t{1} << 50,
          .bytes_sent = 4,
          .num_blocks_used = 5,
          .num_blocks = 6,
          .progress_age_ms = 7,
          .step_in_progress = true};
}

// Records calls. Internally locked.
class RecordingHandler final : public AttentionControlHandler {
 public:
  WorkerInfo describe() override { return make_worker_info(); }
  Result<std::vector<std::string>> configure(const SessionConfig& config) override {
    record("configure " + std::to_string(config.epoch));
    std::unique_lock lock(mutex_);
    const std::function<void()> hook = configure_hook_;
    lock.unlock();
    if (hook) hook();
    lock.lock();
    configs_.push_back(config);
    return std::vector<std::string>(config.parts.size() * static_cast<size_t>(config.num_replicas),
                                    std::string("worker\0blob", 11));
  }
  WorkerStats heartbeat() override { return make_worker_stats(); }
  void end_session(uint64_t epoch, SessionEnd reason) override {
    record("end " + std::to_string(epoch) + ": " + std::string(session_end_name(reason)));
  }

  // Runs inside configure(); may throw.
  void set_configure_hook(std::function<void()> hook) {
    const std::lock_guard lock(mutex_);
    configure_hook_ = std::move(hook);
  }
  std::vector<std::string> log() const {
    const std::lock_guard lock(mutex_);
    return log_;
  }
  std::vector<SessionConfig> configs() const {
    const std::lock_guard lock(mutex_);
    return configs_;
  }
  // False if the log did not grow to `size` lines in `timeout`.
  bool wait_for_log(size_t size, Duration timeout) {
    std::unique_lock lock(mutex_);
    return grown_.wait_for(lock, timeout, [&] { return log_.size() >= size; });
  }

 private:
  void record(std::string line) {
    const std::lock_guard lock(mutex_);
    log_.push_back(std::move(line));
    grown_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable grown_;
  std::function<void()> configure_hook_;
  std::vector<std::string> log_;
  std::vector<SessionConfig> configs_;
};

// A worker on a ManualClock: it answers at once, fails at once with `error`, or is silent: then a
// call takes its whole timeout. Confined to one thread.
class FakeWorker final : public AttentionControl {
 public:
  explicit FakeWorker(ManualClock& clock) : clock_(clock) {}

  [[nodiscard]] const std::string& name() const override { return name_; }
  Result<WorkerInfo> describe(Duration timeout) override {
    ++num_describes;
    LAMINA_RETURN_IF_ERROR(outcome(timeout));
    return info;
  }
  Result<std::vector<std::string>> configure(const SessionConfig& /*config*/,
                                             Duration timeout) override {
    LAMINA_RETURN_IF_ERROR(outcome(timeout));
    return std::vector<std::string>{"blob"};
  }
  Result<WorkerStats> heartbeat(uint64_t epoch, Duration timeout) override {
    ++num_heartbeats;
    last_timeout = timeout;
    last_epoch = epoch;
    if (during_call) during_call();
    LAMINA_RETURN_IF_ERROR(outcome(timeout));
    return stats;
  }
  Status end_session(uint64_t /*epoch*/, Duration timeout) override { return outcome(timeout); }

  bool silent = false;
  Status error;
  WorkerInfo info = make_worker_info();
  WorkerStats stats = make_worker_stats();
  std::function<void()> during_call;
  int num_describes = 0;
  int num_heartbeats = 0;
  uint64_t last_epoch = 0;
  Duration last_timeout{};

 private:
  Status outcome(Duration timeout) {
    if (!silent) return error;
    clock_.advance(timeout);
    return deadline_exceeded("silent");
  }

  ManualClock& clock_;
  std::string name_ = "fake:1";
};

}  // namespace lamina::control
