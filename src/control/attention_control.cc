#include "control/attention_control.h"

#include <cmath>
#include <span>

namespace lamina::control {
namespace {

// Far beyond any real model or batch, and small enough that no product of three overflows 64 bits.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 65536;
constexpr int64_t kMaxParts = 64;
constexpr int64_t kMaxMicroBatches = 64;
constexpr int64_t kMaxReplicas = 64;
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

Status validate_dims(const SessionConfig& config) {
  LAMINA_RETURN_IF_ERROR(in_range("model_num_kv_heads", config.model_num_kv_heads, 1, kMaxHeads));
  LAMINA_RETURN_IF_ERROR(in_range("num_layers", config.num_layers, 1, kMaxLayers));
  LAMINA_RETURN_IF_ERROR(in_range("head_dim", config.head_dim, 1, kMaxHeadDim));
  const int64_t most = config.latent ? config.head_dim : kMaxHeadDim;
  return in_range("value_dim", config.value_dim, 1, most);
}

Status validate_sizes(const SessionConfig& config) {
  LAMINA_RETURN_IF_ERROR(in_range("block_size", config.block_size, 1, kMaxBlockSize));
  LAMINA_RETURN_IF_ERROR(in_range("num_blocks", config.num_blocks, 1, kMaxBlocks));
  LAMINA_RETURN_IF_ERROR(
      in_range("num_micro_batches", config.num_micro_batches, 1, kMaxMicroBatches));
  LAMINA_RETURN_IF_ERROR(in_range("num_replicas", config.num_replicas, 1, kMaxReplicas));
  LAMINA_RETURN_IF_ERROR(in_range("max_tokens", config.max_tokens, 1, kMaxTokens));
  LAMINA_RETURN_IF_ERROR(in_range("max_sequences", config.max_sequences, 1, kMaxTokens));
  return in_range("max_blocks_per_sequence", config.max_blocks_per_sequence, 1, kMaxBlocks);
}

Status validate_dtypes(const SessionConfig& config) {
  const auto is_float = [](DType dtype) {
    return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
  };
  // The cache alone may be quantised.
  const DType kv_dtype = is_quantized(config.kv_dtype) ? DType::kF32 : config.kv_dtype;
  for (const DType dtype : {kv_dtype, config.wire_dtype, config.out_dtype}) {
    if (is_float(dtype)) continue;
    return invalid_argument(
        fmt::format("session config: element type {} is not a float", static_cast<int>(dtype)));
  }
  return {};
}

// One finite number for each query head, or none.
Status validate_per_head(const char* field, std::span<const float> values, size_t num_heads) {
  if (!values.empty() && values.size() != num_heads) {
    return invalid_argument(
        fmt::format("session config: {} {} for {} heads", values.size(), field, num_heads));
  }
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return invalid_argument(fmt::format("session config: {} in {}", value, field));
    }
  }
  return {};
}

Status validate_layer(const wire::AttentionLayer& layer, size_t num_heads) {
  if (!std::isfinite(layer.scale)) {
    return invalid_argument(
        fmt::format("session config: attention scale {} is not finite", layer.scale));
  }
  if (layer.window) LAMINA_RETURN_IF_ERROR(in_range("window", *layer.window, 1, INT32_MAX));
  if (layer.soft_cap && !(std::isfinite(*layer.soft_cap) && *layer.soft_cap > 0.0F)) {
    return invalid_argument(fmt::format("session config: soft cap {}", *layer.soft_cap));
  }
  LAMINA_RETURN_IF_ERROR(validate_per_head("alibi_slopes", layer.alibi_slopes, num_heads));
  return validate_per_head("sinks", layer.sinks, num_heads);
}

Status validate_blobs(const SessionConfig& config, const SessionPart& part) {
  if (part.transport_blobs.size() != static_cast<size_t>(config.num_replicas)) {
    return invalid_argument(fmt::format("session config: {} transport blobs, num_replicas is {}",
                                        part.transport_blobs.size(),
                                        config.num_replicas));
  }
  for (const std::string& blob : part.transport_blobs) {
    if (blob.size() <= kMaxBlobBytes) continue;
    return invalid_argument(fmt::format(
        "session config: the transport blob has {} bytes, limit {}", blob.size(), kMaxBlobBytes));
  }
  return {};
}

Status validate_part(const SessionConfig& config, const SessionPart& part, int32_t first_free) {
  const int64_t model_heads = config.model_num_kv_heads;
  LAMINA_RETURN_IF_ERROR(
      in_range("kv_head_begin", part.kv_head_begin, first_free, model_heads - 1));
  LAMINA_RETURN_IF_ERROR(
      in_range("kv_head_end", part.kv_head_end, part.kv_head_begin + 1, model_heads));
  LAMINA_RETURN_IF_ERROR(in_range("block_begin", part.block_begin, 0, config.num_blocks - 1));
  LAMINA_RETURN_IF_ERROR(
      in_range("block_end", part.block_end, part.block_begin + 1, config.num_blocks));
  LAMINA_RETURN_IF_ERROR(in_range("num_heads", part.num_heads, 1, kMaxHeads));
  if (part.num_heads % part.num_kv_heads() != 0) {
    return invalid_argument(
        fmt::format("session config: {} heads do not divide over KV heads [{}, {})",
                    part.num_heads,
                    part.kv_head_begin,
                    part.kv_head_end));
  }
  if (part.layers.size() != static_cast<size_t>(config.num_layers)) {
    return invalid_argument(fmt::format("session config: {} layers are described, num_layers is {}",
                                        part.layers.size(),
                                        config.num_layers));
  }
  for (const wire::AttentionLayer& layer : part.layers) {
    LAMINA_RETURN_IF_ERROR(validate_layer(layer, static_cast<size_t>(part.num_heads)));
  }
  return validate_blobs(config, part);
}

Status validate_parts(const SessionConfig& config) {
  LAMINA_RETURN_IF_ERROR(
      in_range("number of parts", static_cast<int64_t>(config.parts.size()), 1, kMaxParts));
  int32_t first_free = 0;
  for (const SessionPart& part : config.parts) {
    LAMINA_RETURN_IF_ERROR(validate_part(config, part, first_free));
    first_free = part.kv_head_end;
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
  LAMINA_RETURN_IF_ERROR(validate_dims(config));
  LAMINA_RETURN_IF_ERROR(validate_sizes(config));
  LAMINA_RETURN_IF_ERROR(validate_dtypes(config));
  LAMINA_RETURN_IF_ERROR(validate_parts(config));
  return in_range("lease_ms", config.lease_ms, kMinLeaseMs, kMaxLeaseMs);
}

int32_t SessionConfig::num_kv_heads() const {
  int32_t count = 0;
  for (const SessionPart& part : parts) count += part.num_kv_heads();
  return count;
}

wire::SlotGeometry slot_geometry(const SessionConfig& config, const SessionPart& part) {
  return {.num_micro_batches = static_cast<uint32_t>(config.num_micro_batches),
          .max_tokens = static_cast<uint32_t>(config.max_tokens),
          .max_sequences = static_cast<uint32_t>(config.max_sequences),
          .num_blocks = static_cast<uint32_t>(config.num_blocks),
          .num_heads = static_cast<uint32_t>(part.num_heads),
          .num_kv_heads = static_cast<uint32_t>(part.num_kv_heads()),
          .head_dim = static_cast<uint32_t>(config.head_dim),
          .value_dim = static_cast<uint32_t>(config.value_dim),
          .latent = config.latent,
          .dtype = config.wire_dtype,
          .out_dtype = config.out_dtype,
          .may_be_partial = part.num_blocks() < config.num_blocks};
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
