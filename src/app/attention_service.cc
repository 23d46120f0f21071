#include "app/attention_service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "app/version.h"
#include "base/error.h"
#include "base/log.h"
#include "wire/slots.h"

namespace lamina::app {
namespace {

constexpr Duration kConnectTimeout = std::chrono::seconds(10);
constexpr Duration kIdleCheck = std::chrono::milliseconds(100);
constexpr uint64_t kMaxSessionOverheadBytes = uint64_t{2} << 30;

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

AttentionWorkerConfig worker_config(const control::SessionConfig& session) {
  AttentionWorkerConfig config{.core = {.kv = {.num_layers = session.num_layers,
                                               .num_kv_heads = session.num_kv_heads(),
                                               .head_dim = session.head_dim,
                                               .block_size = session.block_size,
                                               .dtype = session.kv_dtype},
                                        .num_blocks = session.num_blocks,
                                        .num_heads = session.num_heads,
                                        .max_sequences = session.max_sequences,
                                        .max_tokens = session.max_tokens,
                                        .max_blocks_per_sequence = session.max_blocks_per_sequence,
                                        .layers = {}},
                               .epoch = session.epoch,
                               .dtype = session.wire_dtype};
  for (const control::LayerAttention& layer : session.layers) {
    config.core.layers.push_back({.scale = layer.scale, .window = layer.window});
  }
  return config;
}

}  // namespace

AttentionService::AttentionService(const AttentionServiceConfig& config)
    : config_(config), pool_(config.num_threads) {}

AttentionService::~AttentionService() {
  stop_session();
}

control::WorkerInfo AttentionService::describe() {
  control::WorkerInfo info;
  info.program_version = kVersion;
  info.hostname = host_name();
  info.pid = ::getpid();
  info.device_name = "cpu";
  info.num_cores = config_.num_threads;
  info.kv_memory_bytes = config_.kv_memory_bytes;
  return info;
}

Status AttentionService::check_memory(const control::SessionConfig& config) const {
  const uint64_t block_bytes = worker_config(config).core.kv.block_bytes();
  const uint64_t fits = config_.kv_memory_bytes / block_bytes;
  if (static_cast<uint64_t>(config.num_blocks) > fits) {
    return resource_exhausted(
        fmt::format("{} KV blocks of {} bytes asked for, {} bytes are set aside",
                    config.num_blocks,
                    block_bytes,
                    config_.kv_memory_bytes));
  }
  // Block tables and message slots come on top of the KV budget.
  const wire::SlotGeometry geometry = control::slot_geometry(config);
  uint64_t other_bytes = static_cast<uint64_t>(config.max_sequences) *
                         static_cast<uint64_t>(config.max_blocks_per_sequence) * sizeof(BlockId);
  for (const size_t bytes : wire::attention_worker_slots(geometry)) other_bytes += bytes;
  for (const size_t bytes : wire::model_worker_slots(geometry)) other_bytes += bytes;
  if (other_bytes <= kMaxSessionOverheadBytes) return {};
  return resource_exhausted(
      fmt::format("block tables and message slots of {} bytes asked for, limit {}",
                  other_bytes,
                  kMaxSessionOverheadBytes));
}

Result<std::string> AttentionService::configure(const control::SessionConfig& config) {
  LAMINA_RETURN_IF_ERROR(check_memory(config));
  if (config.out_dtype != config.wire_dtype)
    return invalid_argument("out_dtype must equal wire_dtype");
  const wire::SlotGeometry geometry = control::slot_geometry(config);
  auto session = std::make_unique<Session>();
  session->config = config;
  session->pending =
      prepare_endpoint({.kind = config.transport,
                        .self = {.id = control::worker_peer_id(config), .epoch = config.epoch},
                        .peer = {.id = config.engine_id, .epoch = config.epoch},
                        .receive_slots = wire::attention_worker_slots(geometry),
                        .send_slots = wire::model_worker_slots(geometry),
                        .listens = true,
                        .host = config_.data_host});
  const std::string blob = session->pending->blob();
  Session& started = *session;
  {
    const std::lock_guard lock(mutex_);
    session_ = std::move(session);
  }
  started.thread = std::thread([this, &started] { run_session(started); });
  log_info("session {} of {}: KV heads [{}, {}), {} blocks, {}",
           config.epoch,
           config.engine_name,
           config.kv_head_begin,
           config.kv_head_end,
           config.num_blocks,
           transport_name(config.transport));
  return blob;
}

void AttentionService::run_session(Session& session) {
  Status status;
  try {
    auto endpoint =
        session.pending->complete(session.config.transport_blob, Deadline::after(kConnectTimeout));
    auto worker = std::make_unique<AttentionWorker>(
        worker_config(session.config), *endpoint, StreamView(pool_));
    {
      const std::lock_guard lock(mutex_);
      session.endpoint = std::move(endpoint);
      session.worker = std::move(worker);
      session.state = control::WorkerState::kServing;
    }
    status = session.worker->serve(session.should_stop, WaitPolicy{}, kIdleCheck);
  } catch (const Error& error) {
    status = error.status();
  } catch (const std::exception& error) {
    status = internal_error(error.what());
  }
  if (session.should_stop || status.ok()) return;
  log_warning("session {}: {}", session.config.epoch, status.to_string());
  const std::lock_guard lock(mutex_);
  session.state = control::WorkerState::kFailed;
  session.failure = status.to_string();
}

control::WorkerStats AttentionService::heartbeat() {
  const std::lock_guard lock(mutex_);
  control::WorkerStats stats;
  if (session_ == nullptr) return stats;
  stats.state = session_->state;
  stats.failure = session_->failure;
  stats.num_blocks = session_->config.num_blocks;
  if (session_->worker == nullptr) return stats;
  const AttentionWorkerStats& worker = session_->worker->stats();
  stats.num_steps = worker.num_steps;
  stats.num_tokens = worker.num_tokens;
  stats.attention_seconds = std::chrono::duration<double>(Duration(worker.attention_ns)).count();
  stats.wait_seconds = std::chrono::duration<double>(Duration(worker.wait_ns)).count();
  stats.bytes_received = worker.bytes_received;
  stats.bytes_sent = worker.bytes_sent;
  stats.num_blocks_used = worker.num_blocks_used;
  stats.step_in_progress =
      worker.is_in_step;  // read before the time of progress, which is written before it
  const Duration age = steady_clock().now().time_since_epoch() - Duration(worker.last_progress_ns);
  const auto age_ms = std::chrono::duration_cast<std::chrono::milliseconds>(age).count();
  stats.progress_age_ms = static_cast<uint64_t>(std::max<int64_t>(0, age_ms));
  return stats;
}

void AttentionService::end_session(uint64_t /*epoch*/, control::SessionEnd /*reason*/) {
  stop_session();  // the control server has logged it
}

void AttentionService::stop_session() {
  std::unique_ptr<Session> ended;
  {
    const std::lock_guard lock(mutex_);
    ended = std::move(session_);
    if (ended == nullptr) return;
    ended->should_stop = true;
    if (ended->endpoint != nullptr) ended->endpoint->abort();
  }
  if (ended->thread.joinable()) ended->thread.join();
  ended->worker.reset();
}

}  // namespace lamina::app
