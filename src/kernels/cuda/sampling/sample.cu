#include <cfloat>
#include <cmath>

#include "kernels/cuda/sampling/sample_block.cuh"
#include "kernels/cuda/sampling/sample_launch.h"

namespace lamina::kernels::cuda {
namespace {

struct Row {
  float* logits;
  int32_t vocab_size;
  const SamplingRow* params;  // of the block
};

// As the CPU's, which rounds each step.
__device__ void apply_edits(const SamplingParams& params, const Row& row) {
  const SamplingRow& with = *row.params;
  for (int32_t i = thread_idx(); i < with.penalties.count; i += kSampleThreads) {
    const PenalizedId edit = params.penalties[with.penalties.begin + i];
    float logit = row.logits[edit.id];
    if (with.repetition_penalty != 1.0F) {
      logit = logit > 0 ? logit / with.repetition_penalty : logit * with.repetition_penalty;
    }
    if (edit.count > 0) {
      logit -= __fmul_rn(with.frequency_penalty, static_cast<float>(edit.count));
      logit -= with.presence_penalty;
    }
    row.logits[edit.id] = logit;
  }
  __syncthreads();
  for (int32_t i = thread_idx(); i < with.biases.count; i += kSampleThreads) {
    const BiasedId edit = params.biases[with.biases.begin + i];
    atomicAdd(&row.logits[edit.id], edit.bias);  // an id may be there twice
  }
  __syncthreads();
  for (int32_t i = thread_idx(); i < with.forbidden.count; i += kSampleThreads) {
    row.logits[params.forbidden[with.forbidden.begin + i]] = -INFINITY;
  }
  __syncthreads();
}

// Larger for larger logits, and among equals for smaller ids.
__device__ Mass rank_of(float logit, int32_t id) {
  return static_cast<Mass>(order_key(logit)) << 32 | (0xFFFFFFFFU - static_cast<uint32_t>(id));
}
__device__ int32_t id_of(Mass rank) {
  return static_cast<int32_t>(0xFFFFFFFFU - static_cast<uint32_t>(rank));
}

// Replaces NaN by -inf and +inf by the largest float. The rank of the largest, or 0 if none was
// finite before.
__device__ Mass clean(const Row& row) {
  bool has_finite = false;
  Mass top = 0;
  for (int32_t id = thread_idx(); id < row.vocab_size; id += kSampleThreads) {
    float logit = row.logits[id];
    has_finite |= isfinite(logit);
    if (isnan(logit)) logit = -INFINITY;
    logit = fminf(logit, FLT_MAX);
    row.logits[id] = logit;
    const Mass rank = rank_of(logit, id);
    top = rank > top ? rank : top;
  }
  top = block_max(top);
  return __syncthreads_or(has_finite ? 1 : 0) != 0 ? top : 0;
}

// Probabilities but for a common factor, as integers: the largest is 2^44, so that 2^19 of them
// have a sum; one of less than 2^-45 of it is never drawn.
class Weigher {
 public:
  __device__ Weigher(const Row& row, float top) : row_(row), top_(top) {}

  [[nodiscard]] __device__ Mass mass(int32_t id) const { return to_mass(weight(id)); }
  // 0 for what min-p drops.
  [[nodiscard]] __device__ Mass mass_left(int32_t id) const {
    const float its_weight = weight(id);
    return its_weight < row_.params->min_p ? 0 : to_mass(its_weight);
  }

 private:
  [[nodiscard]] __device__ float weight(int32_t id) const {
    return expf((row_.logits[id] - top_) / row_.params->temperature);
  }
  [[nodiscard]] __device__ static Mass to_mass(float weight) {
    return __float2ull_rn(weight * 0x1p44F);
  }

  Row row_;
  float top_;
};

template <typename Measure>
__device__ Mass sum_of(int32_t count, const Measure& measure) {
  Mass sum = 0;
  for (int32_t id = thread_idx(); id < count; id += kSampleThreads) sum += measure(id);
  return block_sum(sum);
}

// What top-k and top-p keep.
__device__ Prefix select_candidates(const Row& row, const Weigher& weigher) {
  const SamplingRow& with = *row.params;
  Prefix kept;
  if (with.top_k > 0 && with.top_k < row.vocab_size) {
    kept = shortest_prefix(
        row.logits, row.vocab_size, static_cast<Mass>(with.top_k), [](int32_t /*id*/) -> Mass {
          return 1;
        });
  }
  if (with.top_p >= 1.0F) return kept;
  const auto mass = [&](int32_t id) -> Mass {
    return kept.holds(order_key(row.logits[id]), id) ? weigher.mass(id) : 0;
  };
  const Mass total = sum_of(row.vocab_size, mass);
  const double target = ceil(static_cast<double>(with.top_p) * static_cast<double>(total));
  const Mass clamped = max(Mass{1}, min(total, static_cast<Mass>(target)));
  return shortest_prefix(row.logits, row.vocab_size, clamped, mass);
}

// Draws in ascending order of ids, whatever was kept.
__device__ int32_t draw_token(const Row& row, float top) {
  const Weigher weigher(row, top);
  const Prefix kept = select_candidates(row, weigher);
  const auto mass = [&](int32_t id) -> Mass {
    return kept.holds(order_key(row.logits[id]), id) ? weigher.mass_left(id) : 0;
  };
  const Mass total = sum_of(row.vocab_size, mass);
  const auto target = static_cast<Mass>(row.params->draw * static_cast<double>(total));
  return find_by_id(row.vocab_size, min(target, total - 1), mass);
}

// Log-probabilities of `id` and of the num_top most probable, before temperature.
__device__ void write_logprobs(
    const Row& row, float top, int32_t id, SamplingResult& result, SamplingResult* tops) {
  double total = 0.0;
  for (int32_t i = thread_idx(); i < row.vocab_size; i += kSampleThreads) {
    total += static_cast<double>(expf(row.logits[i] - top));
  }
  // Differences to the largest first: they are small where probabilities matter.
  const double log_total = log(block_sum(total));
  const auto logprob = [&](int32_t of) {
    return static_cast<float>(static_cast<double>(row.logits[of]) - static_cast<double>(top) -
                              log_total);
  };
  if (thread_idx() == 0) result = {id, logprob(id)};
  Mass before = ~Mass{0};
  for (int32_t n = 0; n < row.params->num_top; ++n) {
    Mass best = 0;
    for (int32_t i = thread_idx(); i < row.vocab_size; i += kSampleThreads) {
      const Mass rank = rank_of(row.logits[i], i);
      if (rank < before && rank > best) best = rank;
    }
    before = block_max(best);
    if (thread_idx() == 0) tops[n] = {id_of(before), logprob(id_of(before))};
  }
}

// Once for all threads: it lies in the host's memory.
__device__ void load_row(const SamplingRow& from, SamplingRow& to) {
  using Word = uint32_t;
  static_assert(sizeof(SamplingRow) % sizeof(Word) == 0);
  constexpr int kWords = sizeof(SamplingRow) / sizeof(Word);
  static_assert(kWords <= kSampleThreads);
  const int i = thread_idx();
  if (i < kWords) reinterpret_cast<Word*>(&to)[i] = reinterpret_cast<const Word*>(&from)[i];
  __syncthreads();
}

// A block for each row.
__global__ void __launch_bounds__(kSampleThreads)
    sample_rows(const __grid_constant__ SamplingParams params) {
  const int64_t row_idx = blockIdx.x;
  __shared__ SamplingRow with;
  load_row(params.rows[row_idx], with);
  const Row row = {params.logits + row_idx * params.logits_stride, params.vocab_size, &with};
  SamplingResult& result = params.results[row_idx];
  apply_edits(params, row);
  const Mass best = clean(row);
  if (best == 0) {
    if (thread_idx() == 0) result = {-1, 0.0F};
    return;
  }
  int32_t id = id_of(best);
  const float top = row.logits[id];
  if (row.params->target >= 0) {
    id = row.params->target;
  } else if (row.params->temperature > 0) {
    id = draw_token(row, top);
  }
  if (row.params->num_top < 0) {
    if (thread_idx() == 0) result = {id, 0.0F};
    return;
  }
  write_logprobs(row, top, id, result, params.tops + row_idx * params.max_top);
}

}  // namespace

cudaError_t launch_sampling(const SamplingParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  sample_rows<<<static_cast<unsigned>(params.num_rows), kSampleThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace lamina::kernels::cuda
