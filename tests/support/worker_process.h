// An attention worker in a forked process, without a control plane: for tests of the data path that
// need the logits inside the model worker. Fork before any thread is started.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "worker/attention_worker.h"
#include "worker/remote_attention.h"

namespace lamina::test {

class WorkerProcess {
 public:
  // Forks; the child waits for connect().
  WorkerProcess(TransportKind kind, const AttentionWorkerConfig& config);
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;
  ~WorkerProcess();  // kills it

  // The model worker's end. Throws Error.
  std::unique_ptr<Endpoint> connect();

 private:
  [[nodiscard]] EndpointConfig endpoint_config(bool is_worker) const;
  [[noreturn]] void run_child() const;

  TransportKind kind_;
  AttentionWorkerConfig config_;
  pid_t pid_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
};

}  // namespace lamina::test
