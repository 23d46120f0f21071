#include "control/codec.h"

#include <fmt/format.h>
#include <grpcpp/support/status.h>

#include <cmath>

#include "control/attention_control.pb.h"

namespace lamina::control {
namespace {

constexpr size_t kMaxStatusMessageBytes = 1024;
constexpr size_t kMaxNameBytes = 256;

static_assert(static_cast<int>(StatusCode::kOk) == grpc::OK &&
                  static_cast<int>(StatusCode::kDeadlineExceeded) == grpc::DEADLINE_EXCEEDED &&
                  static_cast<int>(StatusCode::kFailedPrecondition) == grpc::FAILED_PRECONDITION &&
                  static_cast<int>(StatusCode::kUnauthenticated) == grpc::UNAUTHENTICATED,
              "our codes stand in gRPC's order");

Status check_version(uint32_t theirs, std::string_view who) {
  if (theirs == kProtocolVersion) return {};
  return failed_precondition(
      fmt::format("the {} speaks control protocol {}, this program {}: run the same release on "
                  "both",
                  who,
                  theirs,
                  kProtocolVersion));
}

v1::DataType to_message(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return v1::DATA_TYPE_F32;
    case DType::kF16:
      return v1::DATA_TYPE_F16;
    case DType::kBF16:
      return v1::DATA_TYPE_BF16;
    case DType::kI8:
      return v1::DATA_TYPE_I8;
    case DType::kF8E4M3:
      return v1::DATA_TYPE_F8_E4M3;
    case DType::kI32:
    case DType::kU8:
      break;
  }
  return v1::DATA_TYPE_UNSPECIFIED;
}

Result<DType> from_message(v1::DataType dtype) {
  switch (static_cast<int>(dtype)) {
    case v1::DATA_TYPE_F32:
      return DType::kF32;
    case v1::DATA_TYPE_F16:
      return DType::kF16;
    case v1::DATA_TYPE_BF16:
      return DType::kBF16;
    case v1::DATA_TYPE_I8:
      return DType::kI8;
    case v1::DATA_TYPE_F8_E4M3:
      return DType::kF8E4M3;
    default:
      return invalid_argument(
          fmt::format("session config: unknown element type {}", static_cast<int>(dtype)));
  }
}

v1::Transport to_message(TransportKind kind) {
  switch (kind) {
    case TransportKind::kLoopback:
      return v1::TRANSPORT_LOOPBACK;
    case TransportKind::kShm:
      return v1::TRANSPORT_SHM;
    case TransportKind::kTcp:
      return v1::TRANSPORT_TCP;
    case TransportKind::kCudaP2p:
      return v1::TRANSPORT_CUDA_P2P;
    case TransportKind::kNccl:
      return v1::TRANSPORT_NCCL;
  }
  return v1::TRANSPORT_UNSPECIFIED;
}

Result<TransportKind> from_message(v1::Transport kind) {
  switch (static_cast<int>(kind)) {
    case v1::TRANSPORT_LOOPBACK:
      return TransportKind::kLoopback;
    case v1::TRANSPORT_SHM:
      return TransportKind::kShm;
    case v1::TRANSPORT_TCP:
      return TransportKind::kTcp;
    case v1::TRANSPORT_CUDA_P2P:
      return TransportKind::kCudaP2p;
    case v1::TRANSPORT_NCCL:
      return TransportKind::kNccl;
    default:
      return invalid_argument(
          fmt::format("session config: unknown transport {}", static_cast<int>(kind)));
  }
}

v1::State to_message(WorkerState state) {
  switch (state) {
    case WorkerState::kIdle:
      return v1::STATE_IDLE;
    case WorkerState::kStarting:
      return v1::STATE_STARTING;
    case WorkerState::kServing:
      return v1::STATE_SERVING;
    case WorkerState::kFailed:
      return v1::STATE_FAILED;
  }
  return v1::STATE_UNSPECIFIED;
}

Result<WorkerState> from_message(v1::State state) {
  switch (static_cast<int>(state)) {
    case v1::STATE_IDLE:
      return WorkerState::kIdle;
    case v1::STATE_STARTING:
      return WorkerState::kStarting;
    case v1::STATE_SERVING:
      return WorkerState::kServing;
    case v1::STATE_FAILED:
      return WorkerState::kFailed;
    default:
      return data_loss(
          fmt::format("the worker's heartbeat has unknown state {}", static_cast<int>(state)));
  }
}

bool is_quantity(double value) {
  return std::isfinite(value) && value >= 0;
}

void encode_layer(const wire::AttentionLayer& layer, v1::LayerAttention& message) {
  message.set_scale(layer.scale);
  if (layer.window) message.set_window(*layer.window);
  if (layer.soft_cap) message.set_soft_cap(*layer.soft_cap);
  message.mutable_alibi_slopes()->Assign(layer.alibi_slopes.begin(), layer.alibi_slopes.end());
  message.mutable_sinks()->Assign(layer.sinks.begin(), layer.sinks.end());
}

wire::AttentionLayer decode_layer(const v1::LayerAttention& message) {
  wire::AttentionLayer layer;
  layer.scale = message.scale();
  if (message.has_window()) layer.window = message.window();
  if (message.has_soft_cap()) layer.soft_cap = message.soft_cap();
  layer.alibi_slopes.assign(message.alibi_slopes().begin(), message.alibi_slopes().end());
  layer.sinks.assign(message.sinks().begin(), message.sinks().end());
  return layer;
}

// Sizes and head ranges, whose ranges validate() checks.
void decode_shape(const v1::ConfigureRequest& message, SessionConfig& config) {
  config.num_layers = message.num_layers();
  config.model_num_kv_heads = message.model_num_kv_heads();
  config.head_dim = message.head_dim();
  config.value_dim = message.value_dim();
  config.latent = message.latent();
  config.block_size = message.block_size();
  config.num_blocks = message.num_blocks();
  config.max_tokens = message.max_tokens();
  config.max_sequences = message.max_sequences();
  config.max_blocks_per_sequence = message.max_blocks_per_sequence();
  config.num_micro_batches = message.num_micro_batches();
  config.num_replicas = message.num_replicas();
  config.overlap = message.overlap();
  config.parts.reserve(static_cast<size_t>(message.parts_size()));
  for (const v1::SessionPart& part : message.parts()) {
    SessionPart& decoded = config.parts.emplace_back();
    decoded.kv_head_begin = part.kv_head_begin();
    decoded.kv_head_end = part.kv_head_end();
    decoded.block_begin = part.block_begin();
    decoded.block_end = part.block_end();
    decoded.num_heads = part.num_heads();
    decoded.transport_blobs.assign(part.transport_blobs().begin(), part.transport_blobs().end());
    for (const v1::LayerAttention& layer : part.layers()) {
      decoded.layers.push_back(decode_layer(layer));
    }
  }
}

}  // namespace

grpc::Status to_grpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()),
          status.message().substr(0, kMaxStatusMessageBytes)};
}

Status from_grpc(const grpc::Status& status, std::string_view where) {
  if (status.ok()) return {};
  const int code = status.error_code();
  const bool known = code > grpc::OK && code <= grpc::UNAUTHENTICATED;
  return {known ? static_cast<StatusCode>(code) : StatusCode::kUnknown,
          fmt::format("{}: {}", where, status.error_message())};
}

void encode(const WorkerInfo& info, v1::DescribeReply& message) {
  message.set_protocol_version(info.protocol_version);
  message.set_program_version(info.program_version);
  message.set_hostname(info.hostname);
  message.set_pid(info.pid);
  message.set_incarnation(info.incarnation);
  message.set_device_name(info.device_name);
  message.set_num_cores(info.num_cores);
  message.set_kv_memory_bytes(info.kv_memory_bytes);
  message.set_session_epoch(info.session_epoch);
  message.set_kv_bytes_per_second(info.kv_bytes_per_second);
}

Result<WorkerInfo> decode(const v1::DescribeReply& message) {
  LAMINA_RETURN_IF_ERROR(check_version(message.protocol_version(), "worker"));
  for (const std::string* name :
       {&message.program_version(), &message.hostname(), &message.device_name()}) {
    if (name->size() > kMaxNameBytes) {
      return data_loss(fmt::format("the worker describes itself by a name of {} bytes, limit {}",
                                   name->size(),
                                   kMaxNameBytes));
    }
  }
  if (!is_quantity(message.kv_bytes_per_second())) {
    return data_loss(
        fmt::format("the worker attends at {} bytes/s", message.kv_bytes_per_second()));
  }
  return WorkerInfo{.protocol_version = message.protocol_version(),
                    .program_version = message.program_version(),
                    .hostname = message.hostname(),
                    .pid = message.pid(),
                    .incarnation = message.incarnation(),
                    .device_name = message.device_name(),
                    .num_cores = message.num_cores(),
                    .kv_memory_bytes = message.kv_memory_bytes(),
                    .kv_bytes_per_second = message.kv_bytes_per_second(),
                    .session_epoch = message.session_epoch()};
}

void encode(const SessionConfig& config, v1::ConfigureRequest& message) {
  message.set_protocol_version(kProtocolVersion);
  message.set_epoch(config.epoch);
  message.set_engine_id(config.engine_id);
  message.set_engine_name(config.engine_name);
  message.set_model_fingerprint(config.model_fingerprint);
  message.set_num_layers(config.num_layers);
  message.set_model_num_kv_heads(config.model_num_kv_heads);
  message.set_head_dim(config.head_dim);
  message.set_value_dim(config.value_dim);
  message.set_latent(config.latent);
  message.set_block_size(config.block_size);
  message.set_num_blocks(config.num_blocks);
  message.set_kv_dtype(to_message(config.kv_dtype));
  message.set_wire_dtype(to_message(config.wire_dtype));
  message.set_out_dtype(to_message(config.out_dtype));
  message.set_max_tokens(config.max_tokens);
  message.set_max_sequences(config.max_sequences);
  message.set_max_blocks_per_sequence(config.max_blocks_per_sequence);
  message.set_num_micro_batches(config.num_micro_batches);
  message.set_num_replicas(config.num_replicas);
  message.set_overlap(config.overlap);
  for (const SessionPart& part : config.parts) {
    v1::SessionPart& encoded = *message.add_parts();
    encoded.set_kv_head_begin(part.kv_head_begin);
    encoded.set_kv_head_end(part.kv_head_end);
    encoded.set_block_begin(part.block_begin);
    encoded.set_block_end(part.block_end);
    encoded.set_num_heads(part.num_heads);
    encoded.mutable_transport_blobs()->Assign(part.transport_blobs.begin(),
                                              part.transport_blobs.end());
    for (const wire::AttentionLayer& layer : part.layers) {
      encode_layer(layer, *encoded.add_layers());
    }
  }
  message.set_transport(to_message(config.transport));
  message.set_lease_ms(config.lease_ms);
}

Result<SessionConfig> decode(const v1::ConfigureRequest& message) {
  LAMINA_RETURN_IF_ERROR(check_version(message.protocol_version(), "engine"));
  SessionConfig config;
  config.epoch = message.epoch();
  config.engine_id = message.engine_id();
  config.engine_name = message.engine_name();
  config.model_fingerprint = message.model_fingerprint();
  decode_shape(message, config);
  LAMINA_ASSIGN_OR_RETURN(config.kv_dtype, from_message(message.kv_dtype()));
  LAMINA_ASSIGN_OR_RETURN(config.wire_dtype, from_message(message.wire_dtype()));
  LAMINA_ASSIGN_OR_RETURN(config.out_dtype, from_message(message.out_dtype()));
  LAMINA_ASSIGN_OR_RETURN(config.transport, from_message(message.transport()));
  config.lease_ms = message.lease_ms();
  LAMINA_RETURN_IF_ERROR(validate(config));
  return config;
}

void encode(const WorkerStats& stats, v1::HeartbeatReply& message) {
  message.set_incarnation(stats.incarnation);
  message.set_epoch(stats.epoch);
  message.set_state(to_message(stats.state));
  message.set_failure(stats.failure);
  message.set_num_steps(stats.num_steps);
  message.set_num_tokens(stats.num_tokens);
  message.set_attention_seconds(stats.attention_seconds);
  message.set_wait_seconds(stats.wait_seconds);
  message.set_bytes_received(stats.bytes_received);
  message.set_bytes_sent(stats.bytes_sent);
  message.set_num_blocks_used(stats.num_blocks_used);
  message.set_num_blocks(stats.num_blocks);
  message.set_progress_age_ms(stats.progress_age_ms);
  message.set_step_in_progress(stats.step_in_progress);
}

Result<WorkerStats> decode(const v1::HeartbeatReply& message) {
  WorkerStats stats{.incarnation = message.incarnation(),
                    .epoch = message.epoch(),
                    .failure = message.failure().substr(0, kMaxStatusMessageBytes),
                    .num_steps = message.num_steps(),
                    .num_tokens = message.num_tokens(),
                    .attention_seconds = message.attention_seconds(),
                    .wait_seconds = message.wait_seconds(),
                    .bytes_received = message.bytes_received(),
                    .bytes_sent = message.bytes_sent(),
                    .num_blocks_used = message.num_blocks_used(),
                    .num_blocks = message.num_blocks(),
                    .progress_age_ms = message.progress_age_ms(),
                    .step_in_progress = message.step_in_progress()};
  LAMINA_ASSIGN_OR_RETURN(stats.state, from_message(message.state()));
  const bool blocks_ok = stats.num_blocks_used >= 0 && stats.num_blocks_used <= stats.num_blocks;
  if (!blocks_ok || !is_quantity(stats.attention_seconds) || !is_quantity(stats.wait_seconds)) {
    return data_loss(fmt::format(
        "the worker's heartbeat has impossible values: {} of {} blocks, {} s attention, {} s wait",
        stats.num_blocks_used,
        stats.num_blocks,
        stats.attention_seconds,
        stats.wait_seconds));
  }
  return stats;
}

}  // namespace lamina::control
