// SliceGraphs: the captured graphs of a GPU's slices. Decoding enqueues the same launches step
// after step: the second time they are captured, from then on one call enqueues them all. Confined
// to one thread.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/status.h"
#include "device/gpu_graph.h"
#include "device/stream.h"

namespace lamina {

class SliceGraphs {
 public:
  // Slices begin, begin + stride, ... below `end` of a micro-batch.
  struct Part {
    int32_t micro_batch = 0;
    int32_t begin = 0;
    int32_t end = 0;
    int32_t stride = 1;
    bool brings_inputs = false;  // of the step, with its first slices
    int32_t first_replica = 0;   // of the step, where launches depend on whose turn it is
    int64_t num_rows = 0;        // of the step, padded: tokens, and logits rows where they are made
    uint64_t launch_shape = 0;   // attention's, where its calls are among the instructions

    friend auto operator<=>(const Part&, const Part&) = default;
  };
  // All that launches depend on, apart from the model.
  struct Key {
    std::vector<Part> parts;
    size_t first_instruction = 0;

    friend auto operator<=>(const Key&, const Key&) = default;
  };

  // Has `enqueue` enqueue on `stream` what it would for any step with the same key; by the graph of
  // an earlier one if there is. Errors: enqueue's, and GpuGraph's.
  Status run(const Key& key, StreamView stream, const std::function<Status()>& enqueue);

 private:
  std::map<Key, std::optional<GpuGraph>> graphs_;  // none: seen once
};

}  // namespace lamina
