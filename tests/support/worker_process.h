// An attention worker in a forked process, without a control plane: for tests of the data path that
// need the logits inside the model worker. Fork before any thread is started.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "worker/attention_worker.h"
#include "worker/remote_attention.h"

namespace lamina::test {

class WorkerProcess {
 public:
  // Forks; the child waits for connect(). One part for each rank that the worker has heads of.
  WorkerProcess(TransportKind kind, std::vector<AttentionWorkerConfig> parts);
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;
  ~WorkerProcess();  // kills it

  // The model worker's end of each part. Throws Error.
  std::vector<std::unique_ptr<Endpoint>> connect();

 private:
  [[nodiscard]] EndpointConfig endpoint_config(size_t part, bool is_worker) const;
  [[noreturn]] void run_child() const;

  TransportKind kind_;
  std::vector<AttentionWorkerConfig> parts_;
  pid_t pid_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
};

}  // namespace lamina::test
