// Codec: plain structs to protobuf messages and back, and Status to gRPC's. Internal to this room:
// included by its .cc files only. Decoding treats its input as hostile: an enumerator, a number or
// a version out of range is a Status, never a cast.
#pragma once

#include "control/attention_control.h"

namespace grpc {
class Status;
}
namespace lamina::control::v1 {
class ConfigureRequest;
class DescribeReply;
class HeartbeatReply;
}  // namespace lamina::control::v1

namespace lamina::control {

// Codes map one to one. A message longer than 1 KiB is cut, since gRPC bounds its trailers.
grpc::Status to_grpc(const Status& status);
// An unknown code becomes kUnknown. `where` ("attention worker host:port") opens the message.
Status from_grpc(const grpc::Status& status, std::string_view where);

void encode(const WorkerInfo& info, v1::DescribeReply& message);
// kFailedPrecondition for another protocol version, kDataLoss for names without end.
Result<WorkerInfo> decode(const v1::DescribeReply& message);

void encode(const SessionConfig& config, v1::ConfigureRequest& message);
// kFailedPrecondition for another protocol version; the result is valid (see validate()).
Result<SessionConfig> decode(const v1::ConfigureRequest& message);

void encode(const WorkerStats& stats, v1::HeartbeatReply& message);
// kDataLoss for values that no worker sends. A failure's text is cut after 1 KiB.
Result<WorkerStats> decode(const v1::HeartbeatReply& message);

}  // namespace lamina::control
