// What a block finds out about a row of numbers: sums, the largest, and where sums reach a number.
// Sums are of integers, so they do not depend on the order in which threads add. Every function is
// called by all threads of a block, and gives all of them the result. Device code only.
#pragma once

#include <cstdint>

namespace lamina::kernels::cuda {

inline constexpr int kSampleThreads = 512;
inline constexpr int kSampleWarps = kSampleThreads / 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;

using Mass = unsigned long long;

__device__ inline int thread_idx() {
  return static_cast<int>(threadIdx.x);
}

// combine(a, b) over all threads' values, in a fixed order.
template <typename T, typename Combine>
__device__ T block_reduce(T value, const Combine& combine) {
  __shared__ T parts[kSampleWarps];
  for (int step = 16; step > 0; step /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  __syncthreads();  // of the call before, all have read
  if (thread_idx() % 32 == 0) parts[thread_idx() / 32] = value;
  __syncthreads();
  T result = parts[0];
  for (int i = 1; i < kSampleWarps; ++i) result = combine(result, parts[i]);
  return result;
}

template <typename T>
__device__ T block_sum(T value) {
  return block_reduce(value, [](T a, T b) { return a + b; });
}
__device__ inline Mass block_max(Mass value) {
  return block_reduce(value, [](Mass a, Mass b) { return a > b ? a : b; });
}

// Sum of the values of the threads before the calling one: each gets its own.
__device__ inline Mass block_sum_before(Mass value) {
  __shared__ Mass parts[kSampleWarps];
  Mass sum = value;
  for (int step = 1; step < 32; step *= 2) {
    const Mass other = __shfl_up_sync(kAllLanes, sum, step);
    if (thread_idx() % 32 >= step) sum += other;
  }
  __syncthreads();
  if (thread_idx() % 32 == 31) parts[thread_idx() / 32] = sum;
  __syncthreads();
  for (int i = 0; i < thread_idx() / 32; ++i) sum += parts[i];
  return sum - value;
}

// A number whose order among unsigned ones is that of floats; both zeros are one. No NaN.
__device__ inline uint32_t order_key(float value) {
  const uint32_t bits = __float_as_uint(value == 0.0F ? 0.0F : value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// The smallest id at which the sum of measure(id) over ids up to it exceeds `target`, which is less
// than the sum of all.
template <typename Measure>
__device__ int32_t find_by_id(int32_t count, Mass target, const Measure& measure) {
  __shared__ int32_t found;
  const int32_t share = (count + kSampleThreads - 1) / kSampleThreads;
  const int32_t begin = min(count, thread_idx() * share);
  const int32_t end = min(count, begin + share);
  Mass own = 0;
  for (int32_t id = begin; id < end; ++id) own += measure(id);
  Mass sum = block_sum_before(own);
  if (target >= sum && target < sum + own) {
    int32_t id = begin;
    for (; id < end; ++id) {
      sum += measure(id);
      if (sum > target) break;
    }
    found = id;
  }
  __syncthreads();
  const int32_t id = found;
  __syncthreads();  // or the next call would write it too early
  return id;
}

// The first ids of a row in order of logits, largest first and smaller id first among equals: those
// up to `last_id` among logits of `key`, and all of larger keys.
struct Prefix {
  uint32_t key = 0;
  int32_t last_id = INT32_MAX;

  [[nodiscard]] __device__ bool holds(uint32_t its_key, int32_t id) const {
    return its_key > key || (its_key == key && id <= last_id);
  }
};

// The shortest prefix with a sum of measure(id) of at least `target`, from 1 to the sum of all.
// Equal logits have equal measures, or 0 from some id on. Two bits of the key at a time.
template <typename Measure>
__device__ Prefix
shortest_prefix(const float* logits, int32_t count, Mass target, const Measure& measure) {
  uint32_t key = 0;
  for (int shift = 30; shift >= 0; shift -= 2) {
    const uint32_t step = 1U << shift;
    Mass sums[3] = {};  // of keys from key + step, + 2 step, + 3 step on
    for (int32_t id = thread_idx(); id < count; id += kSampleThreads) {
      const uint32_t its_key = order_key(logits[id]);
      if (its_key < key + step) continue;
      const Mass mass = measure(id);
      sums[0] += mass;
      if (its_key >= key + 2 * step) sums[1] += mass;
      if (its_key >= key + 3 * step) sums[2] += mass;
    }
    uint32_t steps = 0;
    for (const Mass sum : sums) steps += block_sum(sum) >= target ? 1U : 0U;
    key += steps * step;
  }
  Mass above = 0;
  Mass equal = 0;
  Mass num_equal = 0;
  for (int32_t id = thread_idx(); id < count; id += kSampleThreads) {
    const uint32_t its_key = order_key(logits[id]);
    if (its_key < key) continue;
    const Mass mass = measure(id);
    if (its_key > key) {
      above += mass;
    } else if (mass > 0) {
      equal += mass;
      ++num_equal;
    }
  }
  above = block_sum(above);
  const Mass each = block_sum(equal) / block_sum(num_equal);
  const Mass num_taken = (target - above + each - 1) / each;
  const int32_t last_id = find_by_id(count, num_taken - 1, [&](int32_t id) -> Mass {
    return order_key(logits[id]) == key && measure(id) > 0 ? 1 : 0;
  });
  return {key, last_id};
}

}  // namespace lamina::kernels::cuda
