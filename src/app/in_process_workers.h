// InProcessWorkers: attention workers that are threads of this process, over the loopback
// transport. They submit to the model worker's own pools: whichever role has work uses all threads,
// and none is started for the other. The control plane runs through loopback sockets as it does for
// processes, so that sessions, leases and statistics have one form.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "app/attention_service.h"
#include "control/address.h"
#include "control/attention_control_server.h"
#include "device/thread_pool.h"

namespace lamina::app {

struct InProcessWorkersConfig {
  int32_t count = 1;
  uint64_t kv_memory_bytes = 0;  // of each
  std::string secret;
};

class InProcessWorkers {
 public:
  // The workers take the pools in turn, of which there is one at least; they outlive this. Throws
  // Error kUnavailable.
  InProcessWorkers(const InProcessWorkersConfig& config,
                   std::span<const std::unique_ptr<ThreadPool>> pools);

  // Where they listen.
  [[nodiscard]] std::vector<control::ControlAddress> addresses() const;

 private:
  struct Worker {
    std::unique_ptr<AttentionService> service;
    std::unique_ptr<control::AttentionControlServer> server;  // calls the service
  };

  std::vector<Worker> workers_;
};

}  // namespace lamina::app
