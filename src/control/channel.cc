#include "control/channel.h"

#include <grpc/support/log.h>

#include "base/log.h"

namespace lamina::control {

gpr_timespec grpc_deadline(Duration timeout) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(timeout.count(), GPR_TIMESPAN));
}

void route_grpc_log() {
  gpr_set_log_function([](gpr_log_func_args* line) { log_debug("gRPC: {}", line->message); });
}

}  // namespace lamina::control
