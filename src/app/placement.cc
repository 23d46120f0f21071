#include "app/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "app/memory.h"
#include "app/security.h"
#include "base/error.h"
#include "base/log.h"
#include "engine/cluster_backend.h"
#include "engine/local_backend.h"
#include "exec/memory_plan.h"
#include "plan/memory_budget.h"
#include "worker/device_rates.h"

namespace lamina::app {
namespace {

// What NCCL's devices can do so far.
void adapt_to_nccl(ClusterBackendConfig& config, const ModelProgram& program) {
  if (!config.transport || !is_of_nccl(*config.transport)) return;
  const std::string_view transport = transport_name(*config.transport);
  // What these bring is not merged as it comes.
  if (config.partition == PartitionKind::kAuto) config.partition = PartitionKind::kHead;
  if (config.partition != PartitionKind::kHead) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--transport {} splits the KV cache by heads: --partition head or "
                            "auto",
                            transport));
  }
  if (program.rotation.num_replicas > 1) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--transport {} has one replica: --replicas 1", transport));
  }
}

// Carried values do not leave a GPU by way of its host.
void check_replicas(const ClusterBackendConfig& config, const LoadedModel& model) {
  if (model.gpus.empty() || model.program.rotation.num_replicas == 1) return;
  if (config.transport == TransportKind::kCudaP2p) return;
  throw Error(StatusCode::kInvalidArgument,
              "--replicas on GPUs take turns over --transport cuda_p2p alone");
}

ClusterBackendConfig cluster_config(const PlacementOptions& options, const LoadedModel& model) {
  ClusterBackendConfig config;
  config.security = to_control_security(options.security);
  config.transport = parse_transport(options.transport);
  if (config.transport == TransportKind::kLoopback && !options.attention_worker.empty()) {
    throw Error(StatusCode::kInvalidArgument,
                "--transport loopback is for workers within this process: not with "
                "--attention-worker");
  }
  config.partition = parse_partition(options.partition).value();
  if (options.overlap || options.no_overlap) config.overlap = !options.no_overlap;
  for (const std::string& address : options.attention_worker) {
    config.workers.push_back(control::parse_control_address(address).value_or_throw());
  }
  if (config.transport && is_of_nccl(*config.transport) && model.gpus.empty()) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--transport {} is between GPUs: --device cuda, or --transport tcp",
                            options.transport));
  }
  adapt_to_nccl(config, model.program);
  check_replicas(config, model);
  return config;
}

// Attention workers of this machine, as the transport has them: threads of this process, or
// processes. Sets the configuration's secret and addresses.
void start_workers(const PlacementOptions& options,
                   const ProcessCpus& cpus,
                   const std::string& log_level,
                   ClusterBackendConfig& config,
                   Placement& placement) {
  std::string& secret = config.security.cluster_secret;
  if (secret.empty()) secret = random_secret();
  config.security.tls = {};  // they are on this machine
  const int32_t count = options.attention_workers;
  const bool uses_gpus = std::ranges::any_of(
      options.attention_device, [](const std::string& device) { return device != "cpu"; });
  const uint64_t kv_memory_bytes = uses_gpus
                                       ? options.kv_cache_memory_bytes
                                       : kv_budget_bytes(options.kv_cache_memory_bytes, count);
  if (uses_gpus && options.transport == "loopback") {
    throw Error(StatusCode::kInvalidArgument,
                "--transport loopback has attention on CPUs: not with --attention-device");
  }
  if (options.transport == "loopback") {
    placement.in_process_workers = std::make_unique<InProcessWorkers>(
        InProcessWorkersConfig{
            .count = count, .kv_memory_bytes = kv_memory_bytes, .secret = secret},
        placement.pools);
    config.workers = placement.in_process_workers->addresses();
  } else {
    placement.local_workers = std::make_unique<LocalWorkers>(
        LocalWorkersConfig{.cpus = shares_of_workers(cpus, count),
                           .devices = options.attention_device,
                           .kv_memory_bytes = kv_memory_bytes,
                           .gpu_memory_utilization = options.gpu_memory_utilization,
                           .secret = secret,
                           .log_level = log_level});
    config.workers = placement.local_workers->addresses();
  }
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
      .rates = measure_product_rates(stream, model.program.dtype, model.program.packed_format()),
      .kv_bytes_per_s = measure_kv_bandwidth(stream)};
  config.scheduler = model.program.scheduler();
  config.max_model_len = model.program.max_model_len;
  config.vocab_size = model.files->config().vocab_size;
  config.max_queued_sequences = max_queued_sequences;
  config.eos_ids = model.files->generation_defaults().eos_ids;
  return config;
}

// A pool for each rank of each replica: they compute at the same time, so each gets an equal share
// of the cores. Ranks on GPUs have their streams, and pools for what is left to the host.
std::vector<StreamView> make_streams(const LoadedModel& model,
                                     const CpuShare& cpus,
                                     Placement& placement) {
  std::vector<StreamView> streams;
  const int32_t num_pools = model.program.num_ranks() * model.program.rotation.num_replicas;
  for (const CpuShare& share : split(cpus, num_pools)) {
    placement.pools.push_back(std::make_unique<ThreadPool>(share.num_threads, share.cpus));
    streams.push_back(model.gpus.empty() ? StreamView(*placement.pools.back())
                                         : model.gpus[streams.size()]->view());
  }
  return streams;
}

// Activations, logits, tables of work and what exchanges take on a GPU, which are allocated after
// its KV budget is set.
uint64_t gpu_reserved_bytes(const ModelProgram& program) {
  const MemoryPlan plan = plan_memory(program.ranks.front().sliced, program.step_limits());
  return kGpuReservedBytes + plan.scratch_bytes +
         static_cast<uint64_t>(program.rotation.num_micro_batches) * plan.carried_bytes;
}

uint64_t colocated_kv_bytes(const PlacementOptions& options, const LoadedModel& model) {
  const uint64_t wanted = options.kv_cache_memory_bytes;
  if (model.gpus.empty() || wanted != 0) return kv_budget_bytes(wanted, 1);
  // Every rank has as many blocks as the others.
  uint64_t least = std::numeric_limits<uint64_t>::max();
  for (const auto& gpu : model.gpus) {
    least = std::min(least,
                     gpu_kv_budget_bytes(gpu->view().device(),
                                         /*wanted=*/0,
                                         options.gpu_memory_utilization,
                                         gpu_reserved_bytes(model.program)));
  }
  return least * model.gpus.size();
}

}  // namespace

std::optional<TransportKind> parse_transport(const std::string& name) {
  if (name == "shm") return TransportKind::kShm;
  if (name == "tcp") return TransportKind::kTcp;
  if (name == "loopback") return TransportKind::kLoopback;
  if (name == "cuda_p2p") return TransportKind::kCudaP2p;
  if (name == "nccl") return TransportKind::kNccl;
  if (name == "rdma") return TransportKind::kRdma;
  return std::nullopt;
}

std::unique_ptr<StepBackend> place_backend(const PlacementOptions& options,
                                           const ProcessCpus& cpus,
                                           const LoadedModel& model,
                                           const std::string& log_level,
                                           Placement& placement) {
  if (!options.trace.empty()) {
    placement.trace = std::make_unique<TraceWriter>(TraceConfig{.path = options.trace});
  }
  ProcessCpus pools = cpus;
  if (options.cpus.threads == 0) {
    pools.share = beside(cpus.share, static_cast<int32_t>(model.gpus.size()));
  }
  const std::vector<StreamView> streams = make_streams(model, pools.share, placement);
  if (options.mode == "colocated") {
    if (model.program.rotation.num_replicas > 1) {
      throw Error(StatusCode::kInvalidArgument,
                  "--replicas needs attention workers: not colocated");
    }
    return std::make_unique<LocalBackend>(
        model.program, colocated_kv_bytes(options, model), streams, placement.trace.get());
  }
  ClusterBackendConfig config = cluster_config(options, model);
  config.trace = placement.trace.get();
  if (!model.gpus.empty()) config.host_stream = StreamView(*placement.pools.front());
  if (config.workers.empty()) start_workers(options, pools, log_level, config, placement);
  return std::make_unique<ClusterBackend>(std::move(config), model.program, streams);
}

Placement place(const PlacementOptions& options,
                const ProcessCpus& cpus,
                const LoadedModel& model,
                int32_t max_queued_sequences,
                const std::string& log_level) {
  Placement placement;
  std::unique_ptr<StepBackend> backend = place_backend(options, cpus, model, log_level, placement);
  placement.engine = std::make_unique<ServingEngine>(
      engine_config(model, max_queued_sequences, StreamView(*placement.pools.front())),
      std::move(backend),
      model.tokenizer.get());
  return placement;
}

}  // namespace lamina::app
