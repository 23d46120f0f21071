// LocalWorkers: attention-worker processes that this one starts, restarts when they end, and ends
// with itself. They listen on loopback only and share a secret that is drawn at random.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "app/cpus.h"
#include "control/address.h"

namespace lamina::app {

struct LocalWorkersConfig {
  std::vector<CpuShare> cpus;        // of each worker, at least one
  std::vector<std::string> devices;  // that they take in turn; none: the CPU
  uint64_t kv_memory_bytes = 0;      // of each; 0: what each finds on its GPU
  double gpu_memory_utilization = 0.9;
  std::string secret;  // reaches them through their environment
  std::string log_level = "info";
};

class LocalWorkers {
 public:
  // Starts them and waits until each has said where it listens. Throws Error kUnavailable.
  explicit LocalWorkers(const LocalWorkersConfig& config);
  LocalWorkers(const LocalWorkers&) = delete;
  LocalWorkers& operator=(const LocalWorkers&) = delete;
  ~LocalWorkers();  // ends them: politely, then by force

  [[nodiscard]] const std::vector<control::ControlAddress>& addresses() const { return addresses_; }

 private:
  struct Child {
    pid_t pid = -1;
    int64_t restart_at_ns = 0;  // while pid is -1
    int32_t num_restarts = 0;
  };

  [[nodiscard]] std::vector<std::string> arguments_of(size_t idx, uint16_t port) const;
  // Starts child `idx`; port 0 at first, the same port again after that. Returns its port.
  uint16_t spawn(size_t idx, uint16_t port);
  void supervise();
  void reap(size_t idx);

  LocalWorkersConfig config_;
  std::vector<Child> children_;  // the supervisor's once it runs
  std::vector<control::ControlAddress> addresses_;
  std::atomic<bool> should_stop_{false};
  std::thread supervisor_;
};

// 32 random bytes in hexadecimal.
std::string random_secret();

}  // namespace lamina::app
