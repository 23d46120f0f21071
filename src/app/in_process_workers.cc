#include "app/in_process_workers.h"

namespace lamina::app {

InProcessWorkers::InProcessWorkers(const InProcessWorkersConfig& config,
                                   std::span<const std::unique_ptr<ThreadPool>> pools) {
  control::AttentionControlServerConfig server;
  server.security.cluster_secret = config.secret;
  for (int32_t i = 0; i < config.count; ++i) {
    ThreadPool& pool = *pools[static_cast<size_t>(i) % pools.size()];
    Worker& worker = workers_.emplace_back();
    worker.service = std::make_unique<AttentionService>(
        AttentionServiceConfig{.kv_memory_bytes = config.kv_memory_bytes}, StreamView(pool));
    worker.server = std::make_unique<control::AttentionControlServer>(server, *worker.service);
  }
}

std::vector<control::ControlAddress> InProcessWorkers::addresses() const {
  std::vector<control::ControlAddress> addresses;
  addresses.reserve(workers_.size());
  for (const Worker& worker : workers_) {
    addresses.push_back({.host = "127.0.0.1", .port = worker.server->port()});
  }
  return addresses;
}

}  // namespace lamina::app
