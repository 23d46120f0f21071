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
#include "device/thread_pool.h"
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

}  // namespace

int run_attention_worker(const AttentionWorkerOptions& options) {
  if (options.parent_pid != 0) exit_with_parent(options.parent_pid);
  const control::ControlAddress listen =
      control::parse_control_address(options.listen).value_or_throw();
  const ProcessCpus cpus = settle(options.cpus);
  const MemoryFromNodes memory(memory_nodes(cpus));
  ThreadPool pool(cpus.share.num_threads, cpus.share.cpus);
  const AttentionServiceConfig config{
      .kv_memory_bytes = kv_budget_bytes(options.kv_cache_memory_bytes, 1),
      .kv_bytes_per_second = kv_bandwidth(options, pool),
      .data_host = listen.host};
  AttentionService service(config, pool);
  control::AttentionControlServer server(
      {.listen = listen, .security = to_control_security(options.security)}, service);
  const control::ControlAddress address{.host = listen.host, .port = server.port()};
  log_info("listening on {}, {}, {} MiB for KV",
           address.to_string(),
           to_string(cpus.share),
           config.kv_memory_bytes >> 20);
  if (options.announce_fd >= 0) announce(options.announce_fd, server.port());
  wait_for_termination();
  unblock_termination_signals();
  server.stop(kStopGrace);
  return 0;
}

}  // namespace lamina::app
