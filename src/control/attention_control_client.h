// AttentionControlClient: an attention worker over gRPC. A call connects if there is no connection;
// kUnavailable means that this failed, or that the connection was lost, and the next call tries
// again at once: back-off is the caller's (worker_watch.h). Internally locked: any thread may call.
#pragma once

#include <memory>
#include <string>

#include "control/address.h"
#include "control/attention_control.h"
#include "control/security.h"

namespace lamina::control {

class AttentionControlClient final : public AttentionControl {
 public:
  // Does not wait for the worker. Throws Error kInvalidArgument (see check_security(); TLS files).
  AttentionControlClient(const ControlAddress& address, const ControlSecurity& security);
  AttentionControlClient(const AttentionControlClient&) = delete;
  AttentionControlClient& operator=(const AttentionControlClient&) = delete;
  ~AttentionControlClient() override;

  [[nodiscard]] const std::string& name() const override;
  Result<WorkerInfo> describe(Duration timeout) override;
  Result<std::vector<std::string>> configure(const SessionConfig& config,
                                             Duration timeout) override;
  Result<WorkerStats> heartbeat(uint64_t epoch, Duration timeout) override;
  Status end_session(uint64_t epoch, Duration timeout) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lamina::control
