#include "app/attention_service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "app/version.h"
#include "base/error.h"
#include "base/log.h"
#include "wire/slots.h"
#include "worker/device_attention_worker.h"
#include "worker/gpu_attention_core.h"

namespace lamina::app {
namespace {

constexpr Duration kConnectTimeout = std::chrono::seconds(10);
constexpr Duration kIdleCheck = std::chrono::milliseconds(100);
constexpr uint64_t kMaxSessionOverheadBytes = uint64_t{8} << 30;

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

AttentionWorkerConfig worker_config(const control::SessionConfig& session,
                                    const control::SessionPart& part) {
  return {.core = {.kv = {.num_layers = session.num_layers,
                          .num_kv_heads = part.num_kv_heads(),
                          .head_dim = session.head_dim,
                          .value_dim = session.value_dim,
                          .latent = session.latent,
                          .block_size = session.block_size,
                          .dtype = session.kv_dtype},
                   .q_dtype = session.wire_dtype,
                   .num_blocks = part.num_blocks(),
                   .num_heads = part.num_heads,
                   .max_sequences = session.max_sequences,
                   .max_tokens = session.max_tokens,
                   .max_blocks_per_sequence = session.max_blocks_per_sequence,
                   .num_micro_batches = session.num_micro_batches,
                   .overlap = session.overlap,
                   .layers = part.layers},
          .epoch = session.epoch,
          .dtype = session.wire_dtype,
          .total_blocks = session.num_blocks,
          .num_replicas = session.num_replicas};
}

}  // namespace

void add_stats(const TileWorkerStats& part, control::WorkerStats& stats) {
  const auto seconds = [](int64_t ns) {
    return std::chrono::duration<double>(Duration(ns)).count();
  };
  stats.num_steps = std::max<uint64_t>(stats.num_steps, part.num_steps);
  stats.num_tokens = std::max<uint64_t>(stats.num_tokens, part.num_tokens);
  stats.attention_seconds += seconds(part.attention_ns);
  stats.wait_seconds += seconds(part.wait_ns);
  stats.bytes_received += part.bytes_received;
  stats.bytes_sent += part.bytes_sent;
  stats.num_blocks_used = std::max<int32_t>(stats.num_blocks_used, part.num_blocks_used);
  // Read before the time of progress, which is written before it.
  const bool is_in_step = part.is_in_step;
  if (!is_in_step) return;  // a part without a block of any step is idle for as long as it likes
  stats.step_in_progress = true;
  const Duration age = steady_clock().now().time_since_epoch() - Duration(part.last_progress_ns);
  const auto age_ms = std::chrono::duration_cast<std::chrono::milliseconds>(age).count();
  stats.progress_age_ms =
      std::max(stats.progress_age_ms, static_cast<uint64_t>(std::max<int64_t>(0, age_ms)));
}

AttentionService::AttentionService(const AttentionServiceConfig& config, StreamView stream)
    : config_(config), stream_(stream) {}

AttentionService::~AttentionService() {
  stop_session();
}

control::WorkerInfo AttentionService::describe() {
  control::WorkerInfo info;
  info.program_version = kVersion;
  info.hostname = host_name();
  info.pid = ::getpid();
  const Device device = stream_.device();
  info.device_name = device_name(device);
  info.num_cores = device.kind == DeviceKind::kCpu ? stream_.pool().num_threads() : 0;
  info.kv_memory_bytes = config_.kv_memory_bytes;
  info.kv_bytes_per_second = config_.kv_bytes_per_second;
  return info;
}

Status AttentionService::check_memory(const control::SessionConfig& config) const {
  uint64_t kv_bytes = 0;
  // Block tables, message slots and what overlapped attention leaves behind come on top of the KV
  // budget.
  const auto num_tables = static_cast<uint64_t>(1 + config.num_micro_batches);
  uint64_t other_bytes = static_cast<uint64_t>(config.max_sequences) *
                         static_cast<uint64_t>(config.max_blocks_per_sequence) * sizeof(BlockId) *
                         num_tables * config.parts.size();
  for (const control::SessionPart& part : config.parts) {
    const AttentionCoreConfig core = worker_config(config, part).core;
    kv_bytes += core.kv.block_bytes() * static_cast<uint64_t>(part.num_blocks());
    other_bytes += static_cast<uint64_t>(core.num_micro_batches) * core.state_bytes();
    const wire::SlotGeometry geometry = control::slot_geometry(config, part);
    const auto num_replicas = static_cast<uint64_t>(config.num_replicas);
    for (const size_t bytes : wire::attention_worker_slots(geometry)) {
      other_bytes += num_replicas * bytes;
    }
    for (const size_t bytes : wire::model_worker_slots(geometry)) {
      other_bytes += num_replicas * bytes;
    }
  }
  if (kv_bytes > config_.kv_memory_bytes) {
    return resource_exhausted(fmt::format(
        "{} bytes of KV blocks asked for, {} are set aside", kv_bytes, config_.kv_memory_bytes));
  }
  if (other_bytes <= kMaxSessionOverheadBytes) return {};
  return resource_exhausted(fmt::format(
      "block tables, message slots and attention states of {} bytes asked for, limit {}",
      other_bytes,
      kMaxSessionOverheadBytes));
}

Result<std::vector<std::string>> AttentionService::configure(const control::SessionConfig& config) {
  LAMINA_RETURN_IF_ERROR(check_memory(config));
  if (config.out_dtype != config.wire_dtype) {
    return invalid_argument("out_dtype must equal wire_dtype");
  }
  if (is_of_nccl(config.transport) && config.num_replicas > 1) {
    return invalid_argument(
        fmt::format("{} is for one replica of the model", transport_name(config.transport)));
  }
  auto session = std::make_unique<Session>();
  session->config = config;
  std::vector<std::string> blobs;
  for (const control::SessionPart& part : config.parts) {
    Part& added = session->parts.emplace_back();
    for (int32_t replica = 0; replica < config.num_replicas; ++replica) {
      added.pending.push_back(prepare_endpoint(endpoint_config(config, part)));
      blobs.push_back(added.pending.back()->blob());
    }
  }
  Session& started = *session;
  {
    const std::lock_guard lock(mutex_);
    session_ = std::move(session);
  }
  started.thread = std::thread([this, &started] { run_session(started); });
  log_info("session {} of {}: {} KV heads in {} parts, {} blocks, {}",
           config.epoch,
           config.engine_name,
           config.num_kv_heads(),
           config.parts.size(),
           config.num_blocks,
           transport_name(config.transport));
  return blobs;
}

EndpointConfig AttentionService::endpoint_config(const control::SessionConfig& config,
                                                 const control::SessionPart& part) const {
  const wire::SlotGeometry geometry = control::slot_geometry(config, part);
  EndpointConfig endpoint{.kind = config.transport,
                          .self = {.id = control::worker_peer_id(part), .epoch = config.epoch},
                          .peer = {.id = config.engine_id, .epoch = config.epoch},
                          .receive_slots = wire::attention_worker_slots(geometry),
                          .send_slots = wire::model_worker_slots(geometry),
                          .listens = true,
                          .host = config_.data_host};
  if (!has_device_links(config.transport)) return endpoint;
  endpoint.device = stream_.device();
  endpoint.num_device_channels = geometry.num_micro_batches;
  endpoint.receive_slots = wire::attention_worker_slots(wire::without_tensors(geometry));
  endpoint.send_slots = wire::model_worker_slots(wire::without_tensors(geometry));
  endpoint.device_receive_slots = wire::attention_device_slots(geometry);
  endpoint.device_send_slots = wire::model_device_slots(geometry);
  return endpoint;
}

// A GPU meets q and the cached keys when k and v are there, whatever the session's overlap.
std::unique_ptr<TileWorker> AttentionService::make_worker(const AttentionWorkerConfig& config,
                                                          std::vector<Endpoint*> replicas) const {
  if (replicas.front()->device_link() != nullptr) {
    return std::make_unique<DeviceAttentionWorker>(config, std::move(replicas), stream_);
  }
  if (stream_.device().kind == DeviceKind::kCpu) {
    return std::make_unique<AttentionWorker>(config, std::move(replicas), stream_);
  }
  AttentionWorkerConfig on_gpu = config;
  on_gpu.core.overlap = false;
  auto core = std::make_unique<GpuAttentionCore>(on_gpu.core, stream_);
  return std::make_unique<AttentionWorker>(on_gpu, std::move(replicas), std::move(core));
}

void AttentionService::start_parts(Session& session) {
  const Deadline deadline = Deadline::after(kConnectTimeout);
  for (size_t i = 0; i < session.parts.size(); ++i) {
    const control::SessionPart& config = session.config.parts[i];
    Part& part = session.parts[i];
    std::vector<std::unique_ptr<Endpoint>> endpoints;
    std::vector<Endpoint*> replicas;
    for (size_t replica = 0; replica < part.pending.size(); ++replica) {
      endpoints.push_back(
          part.pending[replica]->complete(config.transport_blobs[replica], deadline));
      replicas.push_back(endpoints.back().get());
    }
    auto worker = make_worker(worker_config(session.config, config), std::move(replicas));
    const std::lock_guard lock(mutex_);
    part.endpoints = std::move(endpoints);
    part.worker = std::move(worker);
  }
  const std::lock_guard lock(mutex_);
  session.state = control::WorkerState::kServing;
}

void AttentionService::run_session(Session& session) {
  stream_.adopt_this_thread();
  Status status;
  try {
    start_parts(session);
    std::vector<TileWorker*> workers;
    workers.reserve(session.parts.size());
    for (const Part& part : session.parts) workers.push_back(part.worker.get());
    status = TileWorker::serve(workers, session.should_stop, WaitPolicy{}, kIdleCheck);
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
  for (const Part& part : session_->parts) {
    if (part.worker != nullptr) add_stats(part.worker->stats(), stats);
  }
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
    for (const Part& part : ended->parts) {
      for (const auto& endpoint : part.endpoints) endpoint->abort();
    }
  }
  if (ended->thread.joinable()) ended->thread.join();
  for (Part& part : ended->parts) part.worker.reset();  // before the endpoint it uses
}

}  // namespace lamina::app
