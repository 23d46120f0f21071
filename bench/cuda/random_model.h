// Models of known shapes with random weights in a device's memory, for benchmarks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "convert/sliced_model.h"
#include "device/buffer.h"
#include "device/stream.h"
#include "graph/graph.h"
#include "model/model_config.h"
#include "model/weight_store.h"

namespace lamina::bench {

// Of a Llama model `name` (llama-3-8b, llama-33b, llama-3-70b, qwen2.5-32b), with `num_layers`, or
// its own number of them if that is 0. Throws Error kNotFound.
ModelConfig llama_config(const std::string& name, int64_t num_layers);
// The same sliced for a GPU: rank `rank`'s share of it.
SlicedModel llama_model(const std::string& name,
                        int64_t num_layers,
                        int32_t rank = 0,
                        int32_t num_ranks = 1);

// `count` small random numbers of bf16 on the stream's device: zeros would be computed with faster.
Buffer random_numbers(size_t count, StreamView stream);

class RandomWeights final : public WeightStore {
 public:
  RandomWeights(const Graph& graph, StreamView stream);

  [[nodiscard]] TensorView get(std::string_view name) const override;
  [[nodiscard]] std::optional<PackedMatrix> find_packed(std::string_view /*name*/) const override {
    return std::nullopt;
  }
  [[nodiscard]] uint64_t resident_bytes() const override { return bytes_; }
  [[nodiscard]] uint64_t fingerprint() const override { return 0; }

 private:
  struct Weight {
    Buffer memory;
    TensorView view;
  };
  std::map<std::string, Weight, std::less<>> weights_;
  uint64_t bytes_ = 0;
};

// Of `num_calls` calls after some that are not counted, each waited for: the median's seconds.
double median_seconds(int32_t num_warm_ups,
                      int32_t num_calls,
                      StreamView stream,
                      const std::function<void()>& body);

}  // namespace lamina::bench
