// An attention worker in a process of its own.
#pragma once

#include <memory>
#include <vector>

#include "support/child_process.h"
#include "worker/attention_worker.h"

namespace lamina::test {

class WorkerProcess {
 public:
  // Forks. Then, part after part and of each replica after replica, the child sets up an endpoint
  // through the channel: with this process by connect(), or brokered with a replica's.
  WorkerProcess(TransportKind kind, std::vector<AttentionWorkerConfig> parts);

  // This process's ends, where it runs all replicas. Throws Error.
  std::vector<std::unique_ptr<Endpoint>> connect();
  [[nodiscard]] Channel channel() const { return process_.channel(); }
  void signal(int number) const { process_.signal(number); }
  // What a replica's end of a part is set up with.
  [[nodiscard]] EndpointConfig replica_side(size_t part) const {
    return endpoint_config(part, /*is_worker=*/false);
  }
  [[nodiscard]] const std::vector<AttentionWorkerConfig>& parts() const { return parts_; }

 private:
  [[nodiscard]] EndpointConfig endpoint_config(size_t part, bool is_worker) const;
  void run_child(const Channel& channel) const;

  TransportKind kind_;
  std::vector<AttentionWorkerConfig> parts_;
  ChildProcess process_;  // last: the child sees the others
};

}  // namespace lamina::test
