#include "exec/device_weights.h"

#include <fmt/format.h>

#include <cstring>

#include "base/error.h"
#include "tensor/copy_tensor.h"

namespace lamina {
namespace {

constexpr size_t kAlignment = 256;

size_t aligned(size_t size_bytes) {
  return (size_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Calls body(name, weight) for each weight of the graph, once.
template <typename Body>
void for_each_weight(const Graph& graph, const WeightStore& host, const Body& body) {
  std::unordered_map<std::string, bool> seen;
  for (const Node& node : graph.nodes()) {
    if (node.kind != OpKind::kWeight || !seen.emplace(node.name, true).second) continue;
    if (host.find_packed(node.name)) {
      throw Error(StatusCode::kUnimplemented,
                  fmt::format("weight '{}' is packed for products on the CPU", node.name));
    }
    body(node.name, host.get(node.name));
  }
}

}  // namespace

DeviceWeights::DeviceWeights(const Graph& graph, const WeightStore& host, StreamView stream)
    : fingerprint_(host.fingerprint()) {
  use_device_of(stream);
  size_t size_bytes = 0;
  for_each_weight(graph, host, [&](const std::string& /*name*/, const TensorView& weight) {
    size_bytes += aligned(weight.size_bytes());
  });
  memory_ = Buffer(memory_of(stream.device().kind), size_bytes);
  size_t offset = 0;
  for_each_weight(graph, host, [&](const std::string& name, const TensorView& weight) {
    std::byte* to = memory_.data() + offset;
    const TensorView placed(to, weight.dtype, weight.shape);
    throw_if_error(copy_tensor(placed, weight, stream));
    weights_.emplace(name, placed);
    if (weight.shape.rank() == 1) keep_vector(name, weight);
    offset += aligned(weight.size_bytes());
  });
  throw_if_error(synchronize(stream));
}

void DeviceWeights::keep_vector(const std::string& name, const TensorView& weight) {
  Buffer& kept = vectors_[name];
  kept = Buffer(MemoryKind::kHost, weight.size_bytes());
  const size_t element = dtype_bytes(weight.dtype);
  for (int64_t i = 0; i < weight.shape[0]; ++i) {
    std::memcpy(kept.data() + static_cast<size_t>(i) * element,
                weight.data + static_cast<size_t>(i * weight.row_stride) * element,
                element);
  }
}

TensorView DeviceWeights::get_on_host(std::string_view name) const {
  const TensorView weight = get(name);
  const auto found = vectors_.find(std::string(name));
  if (found == vectors_.end()) {
    throw Error(StatusCode::kNotFound, fmt::format("weight '{}' is in GPU memory alone", name));
  }
  return {found->second.data(), weight.dtype, weight.shape};
}

TensorView DeviceWeights::get(std::string_view name) const {
  const auto found = weights_.find(std::string(name));
  if (found == weights_.end()) {
    throw Error(StatusCode::kNotFound, fmt::format("no weight '{}'", name));
  }
  return found->second;
}

std::optional<PackedMatrix> DeviceWeights::find_packed(std::string_view /*name*/) const {
  return std::nullopt;
}

std::unique_ptr<WeightStore> place_weights(const Graph& graph,
                                           std::unique_ptr<WeightStore> host,
                                           StreamView stream) {
  if (stream.device().kind == DeviceKind::kCpu) return host;
  return std::make_unique<DeviceWeights>(graph, *host, stream);
}

}  // namespace lamina
