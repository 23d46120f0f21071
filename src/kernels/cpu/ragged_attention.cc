// Online softmax over tiles of 64 positions (arXiv 1805.02867). A task is (sequence, chunk of its
// queries, KV head): each tile of K and V is gathered from the paged cache and widened to f32 once,
// then every query head of the group meets it while it lies in cache.
//   What a query computes depends on its own position and window alone: tiles start at multiples of
// 64, dot products and sums have a fixed order, and keys that it may not see take no part. So
// decode, prefill in any chunking and any batch give the same bits (docs/adr/0009). The two phases
// of a split call part between two tiles, so they do too.
#include "kernels/cpu/ragged_attention.h"

#include <cmath>

#include "kernels/cpu/attention_run.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/cpu/ragged_attention_amx.h"
#include "kernels/cpu/ragged_attention_bf16.h"
#include "kernels/cpu/scratch.h"

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/ragged_attention.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include "base/checked_math.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

using cpu::AttentionTask;
using cpu::first_visible;
using cpu::kNegativeInfinity;
using cpu::kTileKeys;
using cpu::RowRange;
using cpu::RowState;
using cpu::RowSums;
using cpu::TaskRows;

// What every task of one call shares.
struct AttentionJob {
  const RaggedAttentionArgs* args = nullptr;
  int64_t group_size = 1;    // query heads per KV head
  int64_t key_floats = 0;    // elements of a key's row, in whole vectors
  int64_t value_floats = 0;  // and of a value's

  explicit AttentionJob(const RaggedAttentionArgs& call)
      : args(&call),
        group_size(cpu::group_size(call)),
        key_floats(round_up(call.q.shape[2], kLanes)),
        value_floats(round_up(cpu::value_dim(call), kLanes)) {}
  [[nodiscard]] bool is_latent() const { return args->v_cache.empty(); }
};

// Work space of one task, cut from one scratch allocation.
struct AttentionSpace {
  float* keys = nullptr;     // [kTileKeys, key_floats]
  float* values = nullptr;   // [kTileKeys, value_floats], or the keys themselves
  float* queries = nullptr;  // [rows, key_floats]
  RowSums rows;

  static size_t num_floats(const AttentionJob& job, int64_t num_rows) {
    const int64_t tile = kTileKeys * (job.key_floats + (job.is_latent() ? 0 : job.value_floats));
    return static_cast<size_t>(tile + num_rows * job.key_floats);
  }
  AttentionSpace(const AttentionJob& job, const RowSums& sums, float* memory)
      : keys(memory), rows(sums) {
    float* after_keys = keys + kTileKeys * job.key_floats;
    values = job.is_latent() ? keys : after_keys;
    queries = job.is_latent() ? after_keys : values + kTileKeys * job.value_floats;
  }
};

// Rows of positions [begin, end) of one head of a cache, as f32, to tile[0 ...]. `scales`: of its
// tokens, if they are quantised.
template <typename T>
void gather_tile(const AttentionJob& job,
                 const AttentionTask& task,
                 const TensorView& cache,
                 const TensorView& scales,
                 int64_t begin,
                 int64_t end,
                 int64_t row_floats,
                 float* tile) {
  const RaggedBatch& batch = job.args->batch;
  const int64_t block_size = cache.shape[2];
  const int64_t head_dim = cache.shape[3];
  const int32_t* table = batch.block_tables.data() + task.b * batch.max_blocks;
  for (int64_t j = begin; j < end;) {
    const int64_t block_begin = j / block_size * block_size;
    const int64_t run_end = std::min(block_begin + block_size, end);
    const T* row = cache.row<T>(table[j / block_size]) +
                   (task.kv_head * block_size + j - block_begin) * head_dim;
    const float* row_scales = scales.empty() ? nullptr
                                             : scales.row<float>(table[j / block_size]) +
                                                   task.kv_head * block_size - block_begin;
    for (; j < run_end; ++j) {
      for (int64_t i = 0; i < head_dim; i += kLanes) {
        F32Vector elements = load_upto(row + i, head_dim - i);
        if constexpr (sizeof(T) == 1) {
          elements = hn::Mul(elements, hn::Set(F32Tag(), row_scales[j]));
        }
        store_f32(elements, tile + i);
      }
      row += head_dim;
      tile += row_floats;
    }
  }
}

// scores[i] = query . keys[i] for i < num_keys; what follows up to a multiple of 8 is undefined.
HWY_INLINE void dot_keys(
    const float* query, const float* keys, int64_t num_keys, int64_t row_floats, float* scores) {
  const F32Tag d;
  for (int64_t i = 0; i < num_keys; i += 8) {
    const float* rows[8];
    for (int64_t r = 0; r < 8; ++r) rows[r] = keys + std::min(i + r, num_keys - 1) * row_floats;
    F32Vector sums[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) sums[r] = hn::Zero(d);
    for (int64_t k = 0; k < row_floats; k += kLanes) {
      const F32Vector q = hn::LoadU(d, query + k);
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) sums[r] = hn::MulAdd(q, hn::LoadU(d, rows[r] + k), sums[r]);
    }
    sum_lanes_of_4(sums[0], sums[1], sums[2], sums[3], scores + i);
    sum_lanes_of_4(sums[4], sums[5], sums[6], sums[7], scores + i + 4);
  }
}

// What is done to scores beyond the scale: for the query at `position` of a head whose slope is
// `slope` (0: none), keys from position `first_key` on.
HWY_INLINE void bend_scores(const RaggedAttentionArgs& args,
                            float slope,
                            int64_t distance,  // of the first key behind the query, <= 0
                            int64_t num_keys,
                            float* scores) {
  const F32Tag d;
  if (args.soft_cap) {
    const F32Vector cap = hn::Set(d, *args.soft_cap);
    for (int64_t i = 0; i < num_keys; i += kLanes) {
      const F32Vector score = hn::LoadU(d, scores + i);
      hn::StoreU(hn::Mul(hn::Tanh(d, hn::Div(score, cap)), cap), d, scores + i);
    }
  }
  if (slope == 0.0F) return;
  const F32Vector steps = hn::Iota(d, 0.0F);
  for (int64_t i = 0; i < num_keys; i += kLanes) {
    const F32Vector offset = hn::Add(steps, hn::Set(d, static_cast<float>(distance + i)));
    const F32Vector score = hn::LoadU(d, scores + i);
    hn::StoreU(hn::MulAdd(hn::Set(d, slope), offset, score), d, scores + i);
  }
}

// Turns scores into softmax numerators and updates the row's state. Returns the factor by which
// what was summed before must shrink.
HWY_INLINE float update_softmax(float* scores, int64_t num_keys, RowState& state) {
  const F32Tag d;
  const int64_t num_padded = round_up(num_keys, kLanes);
  F32Vector tops = hn::Set(d, kNegativeInfinity);
  std::fill(scores + num_keys, scores + num_padded, kNegativeInfinity);
  for (int64_t i = 0; i < num_padded; i += kLanes) tops = hn::Max(tops, hn::LoadU(d, scores + i));
  const float top = std::max(state.top, hn::GetLane(hn::MaxOfLanes(d, tops)));

  F32Vector totals = hn::Zero(d);
  for (int64_t i = 0; i < num_padded; i += kLanes) {
    const F32Vector weight = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, top)));
    totals = hn::Add(totals, weight);
    hn::StoreU(weight, d, scores + i);
  }
  const float shrink = state.top == top ? 1.0F : std::exp(state.top - top);
  state.total = state.total * shrink + hn::GetLane(hn::SumOfLanes(d, totals));
  state.top = top;
  return shrink;
}

// sums = sums * shrink + weights . values, over kVectors vectors of the head dimension. Even and
// odd keys have their own sums: one chain of additions would wait for itself.
template <int kVectors>
HWY_INLINE void add_values(const float* weights,
                           const float* values,
                           int64_t num_keys,
                           int64_t row_floats,
                           float shrink,
                           float* sums) {
  const F32Tag d;
  F32Vector even_sums[kVectors];
  F32Vector odd_sums[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) even_sums[v] = odd_sums[v] = hn::Zero(d);
  const auto add_key = [&](int64_t key, F32Vector(&to)[kVectors]) HWY_ATTR {
    const F32Vector weight = hn::Set(d, weights[key]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      to[v] = hn::MulAdd(weight, hn::LoadU(d, values + key * row_floats + v * kLanes), to[v]);
    }
  };
  for (int64_t key = 0; key + 1 < num_keys; key += 2) {
    add_key(key, even_sums);
    add_key(key + 1, odd_sums);
  }
  if (num_keys % 2 == 1) add_key(num_keys - 1, even_sums);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    float* sum = sums + v * kLanes;
    const F32Vector tile_sum = hn::Add(even_sums[v], odd_sums[v]);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, sum), hn::Set(d, shrink), tile_sum), d, sum);
  }
}

// One row (a query in one head) meets keys [0, num_keys) of a tile.
struct TileRow {
  const float* keys = nullptr;
  const float* values = nullptr;
  int64_t num_keys = 0;
  int64_t distance = 0;  // position of the first of these keys less that of the query
  const float* query = nullptr;
  float slope = 0.0F;
  RowState* state = nullptr;
  float* sums = nullptr;
};
HWY_NOINLINE void attend_tile(const AttentionJob& job, const TileRow& row) {
  HWY_ALIGN float weights[kTileKeys + 8];
  const int64_t stride = job.is_latent() ? job.key_floats : job.value_floats;
  dot_keys(row.query, row.keys, row.num_keys, job.key_floats, weights);
  bend_scores(*job.args, row.slope, row.distance, row.num_keys, weights);
  const float shrink = update_softmax(weights, row.num_keys, *row.state);
  int64_t k = 0;
  for (; k + 4 * kLanes <= job.value_floats; k += 4 * kLanes) {
    add_values<4>(weights, row.values + k, row.num_keys, stride, shrink, row.sums + k);
  }
  for (; k < job.value_floats; k += kLanes) {
    add_values<1>(weights, row.values + k, row.num_keys, stride, shrink, row.sums + k);
  }
}

// Queries as f32, times the scale of the scores.
template <typename Q>
void load_queries(const AttentionJob& job, const AttentionTask& task, float* queries) {
  const TensorView& q = job.args->q;
  const int64_t head_dim = q.shape[2];
  const F32Vector scale = hn::Set(F32Tag(), job.args->scale);
  for (int64_t t = task.begin; t < task.end; ++t) {
    const Q* row = q.row<Q>(t) + task.kv_head * job.group_size * head_dim;
    for (int64_t g = 0; g < job.group_size; ++g) {
      for (int64_t i = 0; i < head_dim; i += kLanes) {
        store_f32(hn::Mul(load_upto(row + i, head_dim - i), scale), queries + i);
      }
      row += head_dim;
      queries += job.key_floats;
    }
  }
}

template <typename Out>
void store_rows(const RaggedAttentionArgs& args,
                const AttentionTask& task,
                RowRange rows,
                const RowSums& sums) {
  const int64_t group_size = cpu::group_size(args);
  const int64_t value_dim = args.out.shape[2];
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t t = task.begin + row / group_size;
    const int64_t head = task.kv_head * group_size + row % group_size;
    const RowState& state = sums.states[row];
    const float* from = sums.sums + row * sums.stride;
    const bool saw_nothing = state.top == kNegativeInfinity;
    const float total = saw_nothing ? 1.0F : state.total;
    Out* out = args.out.row<Out>(t) + head * value_dim;
    for (int64_t i = 0; i < value_dim; i += kLanes) {
      const F32Vector mean = hn::Div(load_f32(from + i), hn::Set(F32Tag(), total));
      store_upto(mean, out + i, value_dim - i);
    }
    if (args.lse.empty()) continue;
    args.lse.row<float>(t)[head] =
        saw_nothing ? kNegativeInfinity : state.top + std::log(state.total);
  }
}

// The rows of a task meet positions [tile_begin, tile_end), which lie in `space`.
void attend_rows(const AttentionJob& job,
                 const AttentionTask& task,
                 AttentionSpace& space,
                 int64_t tile_begin,
                 int64_t tile_end) {
  const RaggedAttentionArgs& args = *job.args;
  const int64_t num_rows = (task.end - task.begin) * job.group_size;
  const int64_t value_stride = job.is_latent() ? job.key_floats : job.value_floats;
  for (int64_t row = 0; row < num_rows; ++row) {
    const int64_t position = task.position + row / job.group_size;
    const int64_t head = task.kv_head * job.group_size + row % job.group_size;
    const int64_t begin = std::max(tile_begin, first_visible(args, position));
    const int64_t end = std::min(tile_end, position + 1);
    if (begin >= end) continue;
    const float slope =
        args.alibi_slopes.empty() ? 0.0F : args.alibi_slopes[static_cast<size_t>(head)];
    attend_tile(job,
                {.keys = space.keys + (begin - tile_begin) * job.key_floats,
                 .values = space.values + (begin - tile_begin) * value_stride,
                 .num_keys = end - begin,
                 .distance = begin - position,
                 .query = space.queries + row * job.key_floats,
                 .slope = slope,
                 .state = space.rows.states + row,
                 .sums = space.rows.sums + row * space.rows.stride});
  }
}

// The rows of a task meet positions [begin, end) of one tile, as far as their blocks are held here.
template <typename C>
void meet_tile(const AttentionJob& job,
               const AttentionTask& task,
               AttentionSpace& space,
               int64_t begin,
               int64_t end) {
  const RaggedAttentionArgs& args = *job.args;
  const int64_t block_size = args.k_cache.shape[2];
  const int32_t* table = args.batch.block_tables.data() + task.b * args.batch.max_blocks;
  const auto is_held = [&](int64_t j) { return table[j / block_size] != kNoBlock; };
  while (begin < end) {
    const bool held = is_held(begin);
    int64_t run_end = (begin / block_size + 1) * block_size;
    while (run_end < end && is_held(run_end) == held) run_end += block_size;
    run_end = std::min(run_end, end);
    if (held) {
      gather_tile<C>(
          job, task, args.k_cache, args.k_scales, begin, run_end, job.key_floats, space.keys);
      if (!job.is_latent()) {
        gather_tile<C>(
            job, task, args.v_cache, args.v_scales, begin, run_end, job.value_floats, space.values);
      }
      attend_rows(job, task, space, begin, run_end);
    }
    begin = run_end;
  }
}

// C: dtype of the cache. Q: of the queries.
template <typename C, typename Q>
void meet_keys(const RaggedAttentionArgs& args, const AttentionTask& task, TaskRows& rows) {
  const AttentionJob job(args);
  const int64_t num_rows = cpu::num_rows(args, task);
  thread_local cpu::Scratch scratch;
  float* memory = scratch.floats(AttentionSpace::num_floats(job, num_rows));
  AttentionSpace space(job, rows.open(), memory);
  load_queries<Q>(job, task, space.queries);
  const auto [begin, end] = task.keys;
  for (int64_t tile = begin / kTileKeys * kTileKeys; tile < end; tile += kTileKeys) {
    rows.enter(tile);
    meet_tile<C>(job, task, space, std::max(tile, begin), std::min(tile + kTileKeys, end));
  }
}

template <typename C, typename Q>
void attention_typed(const RaggedAttentionArgs& args, ThreadPool& pool) {
  const bool is_f32 = args.out.dtype == DType::kF32;
  cpu::run_attention(args,
                     {.meet = meet_keys<C, Q>,
                      .store = is_f32 ? store_rows<float> : store_rows<Q>,
                      .base = cpu::ScoreBase::kE},
                     pool);
}

template <typename C>
void attention_of_queries(const RaggedAttentionArgs& args, ThreadPool& pool) {
  switch (args.q.dtype) {
    case DType::kF32:
      return attention_typed<C, float>(args, pool);
    case DType::kF16:
      return attention_typed<C, Float16>(args, pool);
    case DType::kBF16:
      return attention_typed<C, BFloat16>(args, pool);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "attention of a dtype that is no float");
}

void ragged_attention(const RaggedAttentionArgs& args, ThreadPool& pool) {
  switch (args.k_cache.dtype) {
    case DType::kF32:
      return attention_of_queries<float>(args, pool);
    case DType::kF16:
      return attention_of_queries<Float16>(args, pool);
    case DType::kBF16:
      return attention_of_queries<BFloat16>(args, pool);
    case DType::kI8:
      return attention_of_queries<int8_t>(args, pool);
    case DType::kF8E4M3:
      return attention_of_queries<Float8E4M3>(args, pool);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "attention over a dtype that no cache has");
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(ragged_attention);

void ragged_attention(const RaggedAttentionArgs& args, ThreadPool& pool) {
  const bool reads_codes = args.order == KvOrder::kPairs && is_quantized(args.k_cache.dtype);
  if (args.q.dtype == DType::kBF16 && (args.k_cache.dtype == DType::kBF16 || reads_codes)) {
    if (uses_amx()) return ragged_attention_amx(args, pool);
    if (uses_bf16_dot()) return ragged_attention_bf16(args, pool);
  }
  HWY_DYNAMIC_DISPATCH(ragged_attention)(args, pool);
}

}  // namespace lamina::kernels::cpu
#endif
