// WeightStore: the parameters of a loaded model by their Hugging Face names, in the dtype the model
// computes in. Zero-copy from the memory-mapped file where stored dtype and alignment allow,
// converted or dequantised into owned memory otherwise, file pages let go as it proceeds. Immutable
// after loading; outlives every executor that uses it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "graph/graph.h"
#include "tensor/tensor_view.h"

namespace lamina {

class WeightStore {
 public:
  virtual ~WeightStore() = default;

  // Shape as stored under Hugging Face's convention ([out, in] for a projection). Throws Error
  // kNotFound, naming it. "lm_head.weight" and "model.embed_tokens.weight" stand for each other
  // where the file stores only one (tied).
  [[nodiscard]] virtual TensorView get(std::string_view name) const = 0;
  [[nodiscard]] virtual bool has(std::string_view name) const = 0;
  // Bytes held in memory of our own plus bytes used in mapped files.
  [[nodiscard]] virtual uint64_t resident_bytes() const = 0;
  // 64-bit hash of names, shapes, dtypes and a sample of the content: two processes with the same
  // model agree on it.
  [[nodiscard]] virtual uint64_t fingerprint() const = 0;
};

}  // namespace lamina
