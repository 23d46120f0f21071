// Where the sums of an item go: to the output, or to a partial; and how partials become results.
#pragma once

#include "kernels/cuda/attention/attention_shared.cuh"

namespace lamina::kernels::cuda {

// What a row's sums refer to: weights are relative to 2^greatest and have the sum `total`.
struct RowTotal {
  float greatest;
  float total;

  [[nodiscard]] __device__ float inverse() const { return total > 0.0F ? 1.0F / total : 0.0F; }
  // The log-sum-exp to base 2.
  [[nodiscard]] __device__ float lse() const {
    return total > 0.0F ? greatest + log2f(total) : -INFINITY;
  }
};

// Where a row goes. Elements are sums times `factor`.
struct RowTarget {
  float* partial;  // or null: the row of the output that starts at element `place` * Dv
  int64_t place;
  float factor;
};

// Column pairs of a row that a lane has, 64 columns apart.
template <typename Traits>
struct LaneColumns {
  static constexpr int kPairs = (Traits::kValueDim + 63) / 64;
  float2 pairs[kPairs];

  __device__ void scale(float factor) {
    for_each([&](int /*column*/, float2& pair) { pair = {pair.x * factor, pair.y * factor}; });
  }
  __device__ void add(float weight, const LaneColumns& other) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      pairs[i].x += weight * other.pairs[i].x;
      pairs[i].y += weight * other.pairs[i].y;
    }
  }

  // Calls body(column, pair) for each.
  template <typename Body>
  __device__ void for_each(const Body& body) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int column = i * 64 + threadIdx.x % 32 * 2;
      if (Traits::kValueDim % 64 == 0 || column < Traits::kValueDim) body(column, pairs[i]);
    }
  }
};

template <typename Traits>
class ResultWriter {
 public:
  using Element = typename Traits::Element;

  __device__ explicit ResultWriter(const AttentionParams& params)
      : params_(params), lane_(threadIdx.x % 32) {}

  // Writes what there is one of for each row, and tells where its elements go. By one thread a row.
  __device__ RowTarget begin_row(const Work& work, int row, const RowTotal& total) const {
    if (work.item.partial == kNoPartial) return begin_result(work, row, total);
    const int64_t slot = partial_row(work.item.partial, work.head, row);
    params_.partial_lses[slot] = total.lse();
    return {params_.partial_outs + slot * Traits::kValueDim, 0, total.inverse()};
  }

  // The same place for other threads, once the row has begun and they were told its factor.
  __device__ RowTarget find_row(const Work& work, int row, float factor) const {
    if (work.item.partial == kNoPartial) return {nullptr, result_place(work, row), factor};
    const int64_t slot = partial_row(work.item.partial, work.head, row);
    return {params_.partial_outs + slot * Traits::kValueDim, 0, factor};
  }

  __device__ void store(const RowTarget& target, int column, float2 sum) const {
    const float2 value = {sum.x * target.factor, sum.y * target.factor};
    if (target.partial != nullptr) {
      *reinterpret_cast<float2*>(target.partial + column) = value;
      return;
    }
    const int64_t element = target.place * Traits::kValueDim + column;
    if (params_.out_is_f32) {
      *reinterpret_cast<float2*>(static_cast<float*>(params_.out) + element) = value;
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<Element*>(params_.out) + element) =
          pack_pair<Element>(value.x, value.y);
    }
  }

  // By one warp: the result of row `row` of a set from its partials. A lane has a partial's weight,
  // and of all of them some columns: both are asked for at once, since their way is long.
  __device__ void merge_row(const Work& work, int row) const {
    RowTotal total = {-INFINITY, 0.0F};
    LaneColumns<Traits> sums = {};
    for (int begin = 0; begin < work.item.num_partials; begin += kMergedAtOnce) {
      const int count = min(kMergedAtOnce, work.item.num_partials - begin);
      const int64_t first = partial_row(work.item.partial + begin, work.head, row);
      const float lse =
          lane_ < count ? __ldcg(params_.partial_lses + first + lane_ * stride()) : -INFINITY;
      LaneColumns<Traits> parts[kMergedAtOnce];
#pragma unroll
      for (int i = 0; i < kMergedAtOnce; ++i) {
        load_partial(first + min(i, count - 1) * stride(), parts[i]);
      }
      const float before = total.greatest;
      total.greatest = fmaxf(before, warp_max(lse));
      const float base = total.greatest == -INFINITY ? 0.0F : total.greatest;
      const float factor = exp2_fast(before - base);
      const float weight = exp2_fast(lse - base);
      total.total = total.total * factor + warp_sum(weight);
      sums.scale(factor);
#pragma unroll
      for (int i = 0; i < kMergedAtOnce; ++i) {
        sums.add(__shfl_sync(~0U, weight, i), parts[i]);  // of one there is not: 0
      }
    }
    const RowTarget target = begin_result(work, row, total);
    sums.for_each([&](int column, float2 sum) { store(target, column, sum); });
  }

 private:
  // That a lane reads before it adds them up.
  static constexpr int kMergedAtOnce = 16 / LaneColumns<Traits>::kPairs;

  __device__ void load_partial(int64_t row, LaneColumns<Traits>& to) const {
    const float* out = params_.partial_outs + row * Traits::kValueDim;
    to.for_each([&](int column, float2& part) {
      part = __ldcg(reinterpret_cast<const float2*>(out + column));
    });
  }

  __device__ int64_t partial_row(int partial, int head, int row) const {
    return (static_cast<int64_t>(partial) * params_.num_kv_heads + head) * Traits::kRows + row;
  }
  __device__ int64_t stride() const {  // from a partial of a row to the next
    return static_cast<int64_t>(params_.num_kv_heads) * Traits::kRows;
  }

  __device__ int64_t result_place(const Work& work, int row) const {
    const QueryPlace query = query_place(params_, work, row);
    return query.token * params_.num_heads + query.head;
  }

  __device__ RowTarget begin_result(const Work& work, int row, RowTotal total) const {
    const QueryPlace query = query_place(params_, work, row);
    const int64_t place = query.token * params_.num_heads + query.head;
    float factor = 1.0F;
    if (params_.sinks != nullptr) {  // a key without a value
      const float sink = params_.sinks[query.head] * kLog2e;
      const float base = fmaxf(total.greatest, sink);
      factor = exp2_fast(total.greatest - base);
      total = {base, total.total * factor + exp2_fast(sink - base)};
    }
    if (params_.lse != nullptr) params_.lse[place] = total.lse() * kLn2;
    return {nullptr, place, factor * total.inverse()};
  }

  const AttentionParams& params_;
  const int lane_;
};

// The warp that takes the sums of narrow items from shared memory, while others multiply on.
template <typename Traits>
class AttentionFinisher {
 public:
  __device__ AttentionFinisher(const AttentionParams& params, AttentionShared<Traits>& shared)
      : shared_(shared), writer_(params), lane_(threadIdx.x % 32) {}

  // Whatever is summed, until the end comes.
  __device__ void run() {
    for (uint32_t parity = 0;; parity ^= 1) {
      shared_.sums_full.wait(parity);
      const Work work = shared_.summed;
      if (work.is_end()) return;
      finish(work);
    }
  }

 private:
  __device__ void finish(const Work& work) {
    store_rows(work);
    shared_.sums_empty.arrive();
  }

  __device__ void store_rows(const Work& work) {
    RowTarget own{};  // of the row that is this lane
    if (lane_ < work.item.num_rows) own = writer_.begin_row(work, lane_, total(lane_));
#pragma unroll 4
    for (int row = 0; row < work.item.num_rows; ++row) {
      const RowTarget target = {reinterpret_cast<float*>(__shfl_sync(
                                    ~0U, reinterpret_cast<unsigned long long>(own.partial), row)),
                                __shfl_sync(~0U, own.place, row),
                                __shfl_sync(~0U, own.factor, row)};
      LaneColumns<Traits> columns;
      columns.for_each([&](int column, float2& sum) {
        sum = *reinterpret_cast<const float2*>(&shared_.sums[row][column]);
      });
      columns.for_each([&](int column, float2 sum) { writer_.store(target, column, sum); });
    }
  }

  // Of all warps together.
  __device__ RowTotal total(int row) const {
    const float base = shared_.greatest_base(row);
    float total = 0.0F;
#pragma unroll
    for (int warp = 0; warp < Traits::kKeyWarps; ++warp) {
      total += exp2_fast(shared_.maxima[warp][row] - base) * shared_.totals[warp][row];
    }
    return {base, total};
  }

  AttentionShared<Traits>& shared_;
  const ResultWriter<Traits> writer_;
  const int lane_;
};

}  // namespace lamina::kernels::cuda
