// When is attention's result there, if q is projected and sent before k and v, or if one product
// makes all three? Arithmetic behind the fusion of projections; knows no graph. Pure functions.
#pragma once

#include <cstdint>
#include <optional>

namespace lamina {

// Rates of what takes part. The defaults are a Hopper-class model worker (H100: dense bf16, HBM3),
// an H20 as attention worker, and a 400 Gbit/s wire as measured between two GPUs (docs/adr/0012).
struct ProjectionRates {
  double flop_per_s = 989e12;             // of the model worker
  double bytes_per_s = 3.35e12;           // of its memory
  double launch_s = 3e-6;                 // of a kernel
  double wire_latency_s = 16.5e-6;        // one way
  double wire_bytes_per_s = 45.7e9;       // one way
  double attention_bytes_per_s = 4.0e12;  // KV that all attention workers read
};

// The step that the estimate is for.
struct ProjectionWorkload {
  int32_t batch = 64;          // tokens, one of each sequence
  int32_t context_len = 4096;  // tokens that each attends to
};

// The products of one attention that have the same input, and what the attention moves.
struct ProjectionShape {
  int64_t in_width = 0;
  int64_t q_width = 0;   // columns of the product that q needs
  int64_t kv_width = 0;  // of the one that k and v need
  int64_t element_bytes = 0;
  int64_t q_bytes = 0;                           // sent per token
  int64_t kv_bytes = 0;                          // sent per token, and read per token of context
  std::optional<int32_t> window = std::nullopt;  // tokens at most that a token attends to

  friend bool operator==(const ProjectionShape&, const ProjectionShape&) = default;
};

// Microseconds from the start of the first product until the attention worker has the result.
struct ProjectionEstimate {
  double split_us = 0.0;  // q's product, send q, k and v's product, send k and v
  double fused_us = 0.0;  // one product, send q, send k and v

  // Ties fuse: one kernel less.
  [[nodiscard]] bool fuses() const { return fused_us <= split_us; }
};

// Attention starts on the cached tokens when q is there and is complete once k and v are there too.
ProjectionEstimate estimate_projection(const ProjectionShape& shape,
                                       const ProjectionRates& rates,
                                       const ProjectionWorkload& workload);

}  // namespace lamina
