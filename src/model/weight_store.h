// WeightStore: the weights of a loaded graph by the names of their nodes, each in its node's dtype
// and shape. Views of the memory-mapped file where it has those very bytes, put together or packed
// for products in memory of our own otherwise. Immutable after loading; outlives every executor
// that uses it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/packed_matrix.h"
#include "tensor/tensor_view.h"

namespace lamina {

class WeightStore {
 public:
  virtual ~WeightStore() = default;

  // Throws Error kNotFound, naming it, for what the graph did not name.
  [[nodiscard]] virtual TensorView get(std::string_view name) const = 0;
  // The same where the host can read it: of a store in a GPU's memory, weights of one axis alone.
  [[nodiscard]] virtual TensorView get_on_host(std::string_view name) const { return get(name); }
  // The weight of that name where it is packed: get() does not have it then.
  [[nodiscard]] virtual std::optional<PackedMatrix> find_packed(std::string_view name) const = 0;
  // Bytes held in memory of our own plus bytes used in mapped files.
  [[nodiscard]] virtual uint64_t resident_bytes() const = 0;
  // 64-bit hash of names, shapes, dtypes and a sample of the content: two processes with the same
  // graph of the same model, packed alike, agree on it.
  [[nodiscard]] virtual uint64_t fingerprint() const = 0;
};

}  // namespace lamina
