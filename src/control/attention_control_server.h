// AttentionControlServer: the gRPC server of an attention worker. It authenticates, validates,
// keeps the epoch and lease rules (session_lease.h) and calls the handler, which app/ joins to the
// worker. One per process: its incarnation is the process's. Internally locked; start and stop come
// from one thread.
#pragma once

#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "control/address.h"
#include "control/attention_control.h"
#include "control/security.h"

namespace lamina::control {

struct AttentionControlServerConfig {
  ControlAddress listen;  // port 0: any free one
  ControlSecurity security;
  int32_t max_threads = 16;  // of gRPC's; calls beyond are refused with kResourceExhausted
  // Strangers' connections are closed: those that do not speak gRPC, with TLS where that is set,
  // by the first time, those without a call by the second. Engines call every second.
  Duration handshake_timeout = std::chrono::seconds(5);
  Duration idle_timeout = std::chrono::seconds(60);
};

class AttentionControlServer {
 public:
  // Listens and serves at once; `handler` and `clock` outlive this. Throws Error: kInvalidArgument
  // (security, see check_security(); TLS files), kUnavailable (the address cannot be listened on).
  AttentionControlServer(const AttentionControlServerConfig& config,
                         AttentionControlHandler& handler,
                         const Clock& clock = steady_clock());
  AttentionControlServer(const AttentionControlServer&) = delete;
  AttentionControlServer& operator=(const AttentionControlServer&) = delete;
  ~AttentionControlServer();  // stop() with a second's grace

  [[nodiscard]] uint16_t port() const;
  // Identifies this start of the process.
  [[nodiscard]] uint64_t incarnation() const;

  // Takes no more calls, gives those under way `grace`, then cancels them; returns when the handler
  // is in none and has been told the end of a live session. Idempotent.
  void stop(Duration grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lamina::control
