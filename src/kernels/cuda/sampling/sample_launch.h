// The launch that sample() and log_probabilities() are made of: one block for each row of logits.
// Called by sample.cc alone. Plain values, which nvcc takes too.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lamina::kernels::cuda {

struct IdRange {
  int32_t begin = 0;
  int32_t count = 0;
};

// SampleRow with its random number drawn and its ids counted.
struct SamplingRow {
  double draw = 0.0;  // in [0, 1)
  float temperature = 1.0F;
  float top_p = 1.0F;
  float min_p = 0.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  float repetition_penalty = 1.0F;
  int32_t top_k = 0;
  int32_t num_top = -1;  // log-probabilities, at most vocab_size; -1: none
  int32_t target = -1;   // what to give the log-probability of; -1: what is sampled
  IdRange penalties;
  IdRange biases;
  IdRange forbidden;
};

// Of a row's ids each one once: `count` times generated.
struct PenalizedId {
  int32_t id = 0;
  int32_t count = 0;
};
struct BiasedId {
  int32_t id = 0;
  float bias = 0.0F;
};

struct SamplingResult {
  int32_t id = -1;  // -1: no logit is finite
  float logprob = 0.0F;
};

// Logits in memory of the device, all else in pinned memory of the host: it is little, and read and
// written once.
struct SamplingParams {
  float* logits;  // [S, V], overwritten
  const SamplingRow* rows;
  const PenalizedId* penalties;  // by SamplingRow's ranges, as the next two
  const BiasedId* biases;
  const int32_t* forbidden;
  SamplingResult* results;  // [S]
  SamplingResult* tops;     // [S, max_top]
  int64_t logits_stride;
  int32_t num_rows;
  int32_t vocab_size;
  int32_t max_top;
};

[[nodiscard]] cudaError_t launch_sampling(const SamplingParams& params, cudaStream_t stream);

}  // namespace lamina::kernels::cuda
