// DeviceWeights: the weights of a loaded graph in the memory of the device that computes with them.
// The host's own store may go afterwards: of it the weights of one axis stay. Immutable after
// construction.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "device/buffer.h"
#include "device/stream.h"
#include "graph/graph.h"
#include "model/weight_store.h"

namespace lamina {

class DeviceWeights final : public WeightStore {
 public:
  // Copies what `graph` names from `host`, in which nothing is packed, and waits. Throws Error:
  // kResourceExhausted naming the sizes if memory is short, kUnimplemented for a packed weight.
  DeviceWeights(const Graph& graph, const WeightStore& host, StreamView stream);

  [[nodiscard]] TensorView get(std::string_view name) const override;
  [[nodiscard]] TensorView get_on_host(std::string_view name) const override;
  [[nodiscard]] std::optional<PackedMatrix> find_packed(std::string_view name) const override;
  [[nodiscard]] uint64_t resident_bytes() const override { return memory_.size_bytes(); }
  [[nodiscard]] uint64_t fingerprint() const override { return fingerprint_; }

 private:
  void keep_vector(const std::string& name, const TensorView& weight);

  Buffer memory_;
  std::unordered_map<std::string, TensorView> weights_;
  std::unordered_map<std::string, Buffer> vectors_;  // on the host: weights of one axis
  uint64_t fingerprint_ = 0;
};

// `host` itself for a CPU.
std::unique_ptr<WeightStore> place_weights(const Graph& graph,
                                           std::unique_ptr<WeightStore> host,
                                           StreamView stream);

}  // namespace lamina
