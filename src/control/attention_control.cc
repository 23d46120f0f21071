#include "control/attention_control.h"

#include <cmath>

namespace lamina::control {
namespace {

// Far beyond any real model or batch, and small enough that no product of three overflows 64 bits.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 65536;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxBlockSize = 4096;
constexpr int64_t kMaxBlocks = INT32_MAX;
constexpr int64_t kMaxTokens = 1 << 20;
constexpr int64_t kMinLeaseMs = 100;
constexpr int64_t kMaxLeaseMs = 3'600'000;
constexpr size_t kMaxBlobBytes = size_t{64} * 1024;
constexpr size_t kMaxNameBytes = 256;

Status in_range(const char* field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return {};
  return invalid_argument(
      fmt::format("session config: {} is {}, not in [{}, {}]", field, value, min, max));
}

Status validate_heads(const SessionConfig& config) {
  const int64_t model_heads = config.model_num_kv_heads;
  LAMINA_RETURN_IF_ERROR(in_range("model_num_kv_heads", model_heads, 1, kMaxHeads));
  LAMINA_RETURN_IF_ERROR(in_range("kv_head_begin", config.kv_head_begin, 0, model_heads - 1));
  LAMINA_RETURN_IF_ERROR(
      in_range("kv_head_end", config.kv_head_end, config.kv_head_begin + 1, model_heads));
  LAMINA_RETURN_IF_ERROR(in_range("num_heads", config.num_heads, 1, kMaxHeads));
  if (config.num_heads % config.num_kv_heads() != 0) {
    return invalid_argument(
        fmt::format("session config: {} heads do not divide over KV heads [{}, {})",
                    config.num_heads,
                    config.kv_head_begin,
                    config.kv_head_end));
  }
  return in_range("head_dim", config.head_dim, 1, kMaxHeadDim);
}

Status validate_sizes(const SessionConfig& config) {
  LAMINA_RETURN_IF_ERROR(in_range("block_size", config.block_size, 1, kMaxBlockSize));
  LAMINA_RETURN_IF_ERROR(in_range("num_blocks", config.num_blocks, 1, kMaxBlocks));
  LAMINA_RETURN_IF_ERROR(in_range("max_tokens", config.max_tokens, 1, kMaxTokens));
  LAMINA_RETURN_IF_ERROR(in_range("max_sequences", config.max_sequences, 1, kMaxTokens));
  return in_range("max_blocks_per_sequence", config.max_blocks_per_sequence, 1, kMaxBlocks);
}

Status validate_dtypes(const SessionConfig& config) {
  for (const DType dtype : {config.kv_dtype, config.wire_dtype, config.out_dtype}) {
    if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
      return invalid_argument(
          fmt::format("session config: element type {} is not a float", static_cast<int>(dtype)));
    }
  }
  return {};
}

Status validate_layers(const SessionConfig& config) {
  LAMINA_RETURN_IF_ERROR(in_range("num_layers", config.num_layers, 1, kMaxLayers));
  if (config.layers.size() != static_cast<size_t>(config.num_layers)) {
    return invalid_argument(fmt::format("session config: {} layers are described, num_layers is {}",
                                        config.layers.size(),
                                        config.num_layers));
  }
  for (const LayerAttention& layer : config.layers) {
    if (!std::isfinite(layer.scale)) {
      return invalid_argument(
          fmt::format("session config: attention scale {} is not finite", layer.scale));
    }
    if (layer.window) LAMINA_RETURN_IF_ERROR(in_range("window", *layer.window, 1, INT32_MAX));
  }
  return {};
}

}  // namespace

Status validate(const SessionConfig& config) {
  if (config.epoch == 0) return invalid_argument("session config: epoch is 0; epochs start at 1");
  if (config.engine_name.size() > kMaxNameBytes) {
    return invalid_argument(fmt::format("session config: the engine's name has {} bytes, limit {}",
                                        config.engine_name.size(),
                                        kMaxNameBytes));
  }
  LAMINA_RETURN_IF_ERROR(validate_heads(config));
  LAMINA_RETURN_IF_ERROR(validate_sizes(config));
  LAMINA_RETURN_IF_ERROR(validate_dtypes(config));
  LAMINA_RETURN_IF_ERROR(validate_layers(config));
  if (config.transport_blob.size() > kMaxBlobBytes) {
    return invalid_argument(fmt::format("session config: the transport blob has {} bytes, limit {}",
                                        config.transport_blob.size(),
                                        kMaxBlobBytes));
  }
  return in_range("lease_ms", config.lease_ms, kMinLeaseMs, kMaxLeaseMs);
}

wire::SlotGeometry slot_geometry(const SessionConfig& config) {
  return {.max_tokens = static_cast<uint32_t>(config.max_tokens),
          .max_sequences = static_cast<uint32_t>(config.max_sequences),
          .num_blocks = static_cast<uint32_t>(config.num_blocks),
          .num_heads = static_cast<uint32_t>(config.num_heads),
          .num_kv_heads = static_cast<uint32_t>(config.num_kv_heads()),
          .head_dim = static_cast<uint32_t>(config.head_dim),
          .dtype = config.wire_dtype,
          .out_dtype = config.out_dtype};
}

std::string_view worker_state_name(WorkerState state) {
  switch (state) {
    case WorkerState::kIdle:
      return "idle";
    case WorkerState::kStarting:
      return "starting";
    case WorkerState::kServing:
      return "serving";
    case WorkerState::kFailed:
      return "failed";
  }
  return "unknown";
}

std::string_view session_end_name(SessionEnd reason) {
  switch (reason) {
    case SessionEnd::kRequested:
      return "requested by the engine";
    case SessionEnd::kReplaced:
      return "replaced by a newer session";
    case SessionEnd::kLeaseExpired:
      return "the engine's lease ran out";
    case SessionEnd::kServerStopped:
      return "the worker is stopping";
  }
  return "unknown";
}

}  // namespace lamina::control
