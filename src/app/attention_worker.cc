#include "app/attention_worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include "app/attention_service.h"
#include "app/cpus.h"
#include "app/memory.h"
#include "app/security.h"
#include "app/signals.h"
#include "base/error.h"
#include "base/log.h"
#include "control/attention_control_server.h"
#include "device/gpu_stream.h"
#include "device/thread_pool.h"
#include "plan/memory_budget.h"
#include "worker/device_rates.h"

namespace lamina::app {
namespace {

constexpr Duration kStopGrace = std::chrono::seconds(2);

// Tells the process that started this one where it listens.
void announce(int fd, uint16_t port) {
  const std::string line = fmt::format("{}\n", port);
  if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("cannot write to --announce-fd {}", fd));
  }
  ::close(fd);
}

// Workers that one parent started on the same cores are alike, and would only measure each other.
double kv_bandwidth(const AttentionWorkerOptions& options, ThreadPool& pool) {
  if (options.parent_pid != 0) return 0;
  const double bytes_per_second = measure_kv_bandwidth(StreamView(pool));
  log_info("attention reads {:.1f} GB/s of KV", bytes_per_second / 1e9);
  return bytes_per_second;
}

uint64_t kv_budget(const AttentionWorkerOptions& options, Device device) {
  if (device.kind == DeviceKind::kCpu) return kv_budget_bytes(options.kv_cache_memory_bytes, 1);
  return gpu_kv_budget_bytes(
      device, options.kv_cache_memory_bytes, options.gpu_memory_utilization, kGpuReservedBytes);
}

}  // namespace

int run_attention_worker(const AttentionWorkerOptions& options) {
  if (options.parent_pid != 0) exit_with_parent(options.parent_pid);
  const control::ControlAddress listen =
      control::parse_control_address(options.listen).value_or_throw();
  const ProcessCpus cpus = settle(options.cpus);
  const MemoryFromNodes memory(memory_nodes(cpus));
  const Device device = parse_device(options.device).value_or_throw();
  std::unique_ptr<GpuStream> gpu;
  if (device.kind == DeviceKind::kCuda) gpu = std::make_unique<GpuStream>(device);
  ThreadPool pool(gpu == nullptr ? cpus.share.num_threads : 1, cpus.share.cpus);
  const AttentionServiceConfig config{
      .kv_memory_bytes = kv_budget(options, device),
      .kv_bytes_per_second = gpu == nullptr ? kv_bandwidth(options, pool) : 0,
      .data_host = listen.host};
  AttentionService service(config, gpu == nullptr ? StreamView(pool) : gpu->view());
  control::AttentionControlServer server(
      {.listen = listen, .security = to_control_security(options.security)}, service);
  const control::ControlAddress address{.host = listen.host, .port = server.port()};
  log_info("listening on {}, {}, {} MiB for KV",
           address.to_string(),
           gpu == nullptr ? to_string(cpus.share) : device_name(device),
           config.kv_memory_bytes >> 20);
  if (options.announce_fd >= 0) announce(options.announce_fd, server.port());
  wait_for_termination();
  unblock_termination_signals();
  server.stop(kStopGrace);
  return 0;
}

}  // namespace lamina::app
