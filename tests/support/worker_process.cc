#include "support/worker_process.h"

#include <algorithm>

#include "wire/slots.h"
#include "worker/device_attention_worker.h"

namespace lamina::test {

WorkerProcess::WorkerProcess(TransportKind kind, std::vector<AttentionWorkerConfig> parts)
    : kind_(kind),
      parts_(std::move(parts)),
      process_([this](const Channel& channel) { run_child(channel); }) {}

EndpointConfig WorkerProcess::endpoint_config(size_t part, bool is_worker) const {
  const AttentionWorkerConfig& config = parts_[part];
  const AttentionCoreConfig& core = config.core;
  const int32_t total_blocks = std::max(config.total_blocks, core.num_blocks);
  const wire::SlotGeometry geometry{
      .num_micro_batches = static_cast<uint32_t>(core.num_micro_batches),
      .max_tokens = static_cast<uint32_t>(core.max_tokens),
      .max_sequences = static_cast<uint32_t>(core.max_sequences),
      .num_blocks = static_cast<uint32_t>(total_blocks),
      .num_heads = static_cast<uint32_t>(core.num_heads),
      .num_kv_heads = static_cast<uint32_t>(core.kv.num_kv_heads),
      .head_dim = static_cast<uint32_t>(core.kv.head_dim),
      .value_dim = static_cast<uint32_t>(core.kv.value_dim),
      .latent = core.kv.latent,
      .dtype = config.dtype,
      .out_dtype = config.dtype,
      .may_be_partial = core.num_blocks < total_blocks};
  const PeerId replica{1, config.epoch};
  const PeerId worker{part + 2, config.epoch};
  const bool sends_itself = kind_ == TransportKind::kCudaP2p;
  const wire::SlotGeometry of_hosts = sends_itself ? wire::without_tensors(geometry) : geometry;
  const auto worker_slots = wire::attention_worker_slots(of_hosts);
  const auto replica_slots = wire::model_worker_slots(of_hosts);
  const auto worker_devices = wire::attention_device_slots(geometry);
  const auto replica_devices = wire::model_device_slots(geometry);
  return {.kind = kind_,
          .self = is_worker ? worker : replica,
          .peer = is_worker ? replica : worker,
          .receive_slots = is_worker ? worker_slots : replica_slots,
          .send_slots = is_worker ? replica_slots : worker_slots,
          .listens = is_worker,
          .host = "127.0.0.1",
          .device_receive_slots = is_worker ? worker_devices : replica_devices,
          .device_send_slots = is_worker ? replica_devices : worker_devices};
}

void WorkerProcess::run_child(const Channel& channel) const {
  ThreadPool pool(1);
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  std::vector<std::unique_ptr<TileWorker>> workers;
  std::vector<TileWorker*> served;
  for (size_t i = 0; i < parts_.size(); ++i) {
    std::vector<Endpoint*> replicas;
    for (int32_t replica = 0; replica < parts_[i].num_replicas; ++replica) {
      endpoints.push_back(connect_through(channel, endpoint_config(i, /*is_worker=*/true)));
      replicas.push_back(endpoints.back().get());
    }
    if (kind_ == TransportKind::kCudaP2p) {
      workers.push_back(std::make_unique<DeviceAttentionWorker>(
          parts_[i], std::move(replicas), StreamView(pool)));
    } else {
      workers.push_back(
          std::make_unique<AttentionWorker>(parts_[i], std::move(replicas), StreamView(pool)));
    }
    served.push_back(workers.back().get());
  }
  const std::atomic<bool> should_stop{false};
  static_cast<void>(TileWorker::serve(served, should_stop, WaitPolicy{}, kChildTimeout));
}

std::vector<std::unique_ptr<Endpoint>> WorkerProcess::connect() {
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (size_t i = 0; i < parts_.size(); ++i) {
    for (int32_t replica = 0; replica < parts_[i].num_replicas; ++replica) {
      endpoints.push_back(connect_through(channel(), replica_side(i)));
    }
  }
  return endpoints;
}

}  // namespace lamina::test
