#include "control/channel.h"

#include <grpc/support/log.h>

#include "base/log.h"

namespace lamina::control {

void route_grpc_log() {
  gpr_set_log_function([](gpr_log_func_args* line) { log_debug("gRPC: {}", line->message); });
}

}  // namespace lamina::control
