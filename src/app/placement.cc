#include "app/placement.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/memory.h"
#include "app/security.h"
#include "base/error.h"
#include "base/log.h"
#include "device/topology.h"
#include "engine/cluster_backend.h"
#include "engine/local_backend.h"
#include "worker/device_rates.h"

namespace lamina::app {
namespace {

std::optional<TransportKind> parse_transport(const std::string& name) {
  if (name == "shm") return TransportKind::kShm;
  if (name == "tcp") return TransportKind::kTcp;
  return std::nullopt;
}

ClusterBackendConfig cluster_config(const PlacementOptions& options) {
  ClusterBackendConfig config;
  config.security = to_control_security(options.security);
  config.transport = parse_transport(options.transport);
  config.partition = parse_partition(options.partition).value();
  config.overlap = !options.no_overlap;
  for (const std::string& address : options.attention_worker) {
    config.workers.push_back(control::parse_control_address(address).value_or_throw());
  }
  return config;
}

// The workers' threads run while the model worker's wait for them: each local worker gets an equal
// share of the cores.
std::unique_ptr<LocalWorkers> start_local_workers(const PlacementOptions& options,
                                                  int32_t num_threads,
                                                  const std::string& secret,
                                                  const std::string& log_level) {
  const int32_t count = options.attention_workers;
  return std::make_unique<LocalWorkers>(
      LocalWorkersConfig{.count = count,
                         .kv_memory_bytes = kv_budget_bytes(options.kv_cache_memory_bytes, count),
                         .num_threads = std::max(1, num_threads / count),
                         .secret = secret,
                         .log_level = log_level});
}

// `stream`: of a replica.
ServingEngineConfig engine_config(const LoadedModel& model,
                                  int32_t max_queued_sequences,
                                  StreamView stream) {
  ServingEngineConfig config;
  config.pipeline = {
      .rotation = model.program.rotation,
      .is_auto = model.has_auto_micro_batches,
      .num_layers = model.program.num_layers(),
      .work = model.program.decode_work(),
      .rates = measure_product_rates(stream, model.program.dtype, model.program.quantized_format()),
      .kv_bytes_per_s = measure_kv_bandwidth(stream)};
  config.scheduler = model.program.scheduler();
  config.max_model_len = model.program.max_model_len;
  config.vocab_size = model.files->config().vocab_size;
  config.max_queued_sequences = max_queued_sequences;
  config.eos_ids = model.files->generation_defaults().eos_ids;
  return config;
}

// A pool for each rank of each replica: they compute at the same time, so each gets an equal share
// of the cores.
std::vector<StreamView> make_streams(const ModelProgram& program,
                                     int32_t num_threads,
                                     Placement& placement) {
  std::vector<StreamView> streams;
  const int32_t num_pools = program.num_ranks() * program.rotation.num_replicas;
  const int32_t share = std::max(1, num_threads / num_pools);
  for (int32_t i = 0; i < num_pools; ++i) {
    placement.pools.push_back(std::make_unique<ThreadPool>(share));
    streams.emplace_back(*placement.pools.back());
  }
  return streams;
}

}  // namespace

Placement place(const PlacementOptions& options,
                const LoadedModel& model,
                int32_t max_queued_sequences,
                const std::string& log_level) {
  Placement placement;
  const int32_t num_threads = options.threads == 0 ? available_cores() : options.threads;
  if (!options.trace.empty()) {
    placement.trace = std::make_unique<TraceWriter>(TraceConfig{.path = options.trace});
  }
  std::unique_ptr<StepBackend> backend;
  if (options.mode == "colocated") {
    if (model.program.rotation.num_replicas > 1) {
      throw Error(StatusCode::kInvalidArgument,
                  "--replicas needs attention workers: not colocated");
    }
    const std::vector<StreamView> streams = make_streams(model.program, num_threads, placement);
    backend = std::make_unique<LocalBackend>(model.program,
                                             kv_budget_bytes(options.kv_cache_memory_bytes, 1),
                                             streams,
                                             placement.trace.get());
  } else {
    ClusterBackendConfig config = cluster_config(options);
    config.trace = placement.trace.get();
    if (config.workers.empty()) {
      if (config.security.cluster_secret.empty()) config.security.cluster_secret = random_secret();
      config.security.tls = {};  // they are on this machine
      placement.local_workers =
          start_local_workers(options, num_threads, config.security.cluster_secret, log_level);
      config.workers = placement.local_workers->addresses();
    }
    const std::vector<StreamView> streams = make_streams(model.program, num_threads, placement);
    backend = std::make_unique<ClusterBackend>(std::move(config), model.program, streams);
  }
  placement.engine = std::make_unique<ServingEngine>(
      engine_config(model, max_queued_sequences, StreamView(*placement.pools.front())),
      std::move(backend),
      model.tokenizer.get());
  return placement;
}

}  // namespace lamina::app
