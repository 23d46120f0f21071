// What the two gRPC ends of this room share: limits, the name of the secret's metadata, deadlines,
// log. Internal to this room: included by its .cc files only.
#pragma once

#include <grpc/support/time.h>

#include "base/clock.h"

namespace lamina::control {

inline constexpr int kMaxMessageBytes = 1 << 20;
// "-bin" lets a secret hold any bytes.
inline constexpr const char* kSecretMetadataKey = "lamina-cluster-secret-bin";

// `timeout` from now on the monotonic clock, so that setting the machine's time neither expires nor
// extends a call.
gpr_timespec grpc_deadline(Duration timeout);

// From now on what gRPC itself would print goes to our log, at debug level: our own errors say it
// in our words.
void route_grpc_log();

}  // namespace lamina::control
