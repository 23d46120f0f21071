// The softmax of attention in pairs of bf16, a tile of 64 keys at a time: what
// ragged_attention_bf16.cc and ragged_attention_amx.cc share beside their tiles. Included there only.
#pragma once

#include <cmath>

#include "base/checked_math.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu::avx512 {

// Scores are kept as powers of two, and those of a row refer to an integer power: so a softmax
// weight that is rounded to bf16 is the same but for a factor of two whatever keys were met before.
// A row whose keys are dealt out to several workers comes out as it would in one piece, but for the
// order of f32 sums.
constexpr float kLog2E = 1.44269504F;
constexpr float kLn2 = 0.693147181F;

constexpr int64_t kTileRows = 4;  // whose softmax is computed together

// Work space of `count` rows beside their tiles.
struct Space {
  int64_t key_dim = 0;  // in whole vectors of bf16
  int64_t num_key_pairs = 0;
  int64_t value_dim = 0;        // in whole vectors of f32
  BFloat16* queries = nullptr;  // [rows, key_dim]
  RowSums rows;

  static int64_t num_floats(const RaggedAttentionArgs& args, int64_t count) {
    static_assert(sizeof(RowState) == 2 * sizeof(float));
    const int64_t widths =
        round_up(args.q.shape[2], kPairs) / 2 + round_up(cpu::value_dim(args), kLanes) + 2;
    return count * widths;
  }
  Space(const RaggedAttentionArgs& args, int64_t count, float* memory)
      : key_dim(round_up(args.q.shape[2], kPairs)),
        num_key_pairs((args.q.shape[2] + 1) / 2),
        value_dim(round_up(cpu::value_dim(args), kLanes)),
        queries(reinterpret_cast<BFloat16*>(memory)) {
    float* sums = memory + count * key_dim / 2;
    rows = {reinterpret_cast<RowState*>(sums + count * value_dim), sums, value_dim};
  }
};

// What up to kTileRows rows that are met together have of their own.
struct RowMasks {
  uint64_t visible[kTileRows] = {};
  int64_t position[kTileRows] = {};
  float slope[kTileRows] = {};
};

// Masks of rows [row, row + height) for keys `held` of the tile from position `begin` on. Returns
// whether any of them sees any.
inline bool find_masks(const RaggedAttentionArgs& args,
                       const AttentionTask& task,
                       uint64_t held,
                       int64_t begin,
                       int64_t row,
                       int64_t height,
                       RowMasks& masks) {
  const int64_t group = group_size(args);
  uint64_t any = 0;
  for (int64_t r = 0; r < height; ++r) {
    const int64_t position = task.position + (row + r) / group;
    const int64_t head = task.kv_head * group + (row + r) % group;
    masks.position[r] = position;
    masks.visible[r] =
        held & bit_range(first_visible(args, position) - begin, position + 1 - begin);
    if (!args.alibi_slopes.empty()) {
      masks.slope[r] = args.alibi_slopes[static_cast<size_t>(head)];
    }
    any |= masks.visible[r];
  }
  return any != 0;
}

// What is done to scores beyond the scale, which come as powers of e; `distance` is the position of
// the tile less the query's.
HWY_INLINE __m512 bend_scores(const RaggedAttentionArgs& args,
                              __m512 score,
                              float slope,
                              int64_t distance) {
  if (args.soft_cap) {  // cap tanh(s / cap), tanh(y) = sign(y) (1 - e) / (1 + e), e = e^(-2 |y|)
    const __m512 cap = _mm512_set1_ps(*args.soft_cap);
    const __m512 one = _mm512_set1_ps(1.0F);
    const __m512 y = _mm512_div_ps(score, cap);
    const __m512 e = exp2_below(_mm512_mul_ps(_mm512_abs_ps(y), _mm512_set1_ps(-2.0F * kLog2E)),
                                _mm512_setzero_ps());
    const __m512 tanh = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    const __m512 sign = _mm512_and_ps(y, _mm512_set1_ps(-0.0F));
    score = _mm512_mul_ps(_mm512_or_ps(tanh, sign), cap);
  }
  if (slope == 0.0F) return score;
  const __m512 steps = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 offset = _mm512_add_ps(steps, _mm512_set1_ps(static_cast<float>(distance)));
  return _mm512_fmadd_ps(_mm512_set1_ps(slope), offset, score);
}

// Turns dot products of a row into scores, powers of two, minus infinity for keys that it does not
// see. Returns a vector that has the largest of them in some lane.
HWY_INLINE __m512 finish_scores(const RaggedAttentionArgs& args,
                                uint64_t visible,
                                float slope,
                                int64_t distance,
                                float (&scores)[kTileKeys]) {
  const bool is_bent = args.soft_cap.has_value() || slope != 0.0F;
  const __m512 scale = _mm512_set1_ps(is_bent ? args.scale : args.scale * kLog2E);
  const __m512 hidden = _mm512_set1_ps(kNegativeInfinity);
  __m512 tops = hidden;
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVectors; ++v) {
    const auto mask = static_cast<__mmask16>(visible >> (v * kLanes));
    __m512 score = _mm512_mul_ps(_mm512_load_ps(scores + v * kLanes), scale);
    if (is_bent) {
      score = bend_scores(args, score, slope, distance + v * kLanes);
      score = _mm512_mul_ps(score, _mm512_set1_ps(kLog2E));
    }
    score = _mm512_mask_mov_ps(hidden, mask, score);
    tops = _mm512_max_ps(tops, score);
    _mm512_store_ps(scores + v * kLanes, score);
  }
  return tops;
}

// Softmax numerators of a row, as bf16. Returns a vector whose lanes add up to their sum.
HWY_INLINE __m512 weigh_keys(const float (&scores)[kTileKeys],
                             uint64_t visible,
                             float top,
                             BFloat16 (&weights)[kTileKeys]) {
  __m512 totals = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVectors; ++v) {
    const auto mask = static_cast<__mmask16>(visible >> (v * kLanes));
    const __m512 score = _mm512_load_ps(scores + v * kLanes);
    const __m512 seen = _mm512_maskz_mov_ps(mask, exp2_below(score, _mm512_set1_ps(top)));
    totals = _mm512_add_ps(totals, seen);
    _mm256_store_si256(reinterpret_cast<__m256i*>(weights + v * kLanes), round_to_bf16(seen));
  }
  return totals;
}

// Turns dot products of kRows rows, which meet a tile from position `begin` on, into softmax
// numerators and updates their states. shrinks: by what that which was summed before must shrink.
template <int kRows>
HWY_INLINE void update_softmax(const RaggedAttentionArgs& args,
                               const RowMasks& masks,
                               int64_t begin,
                               float (*scores)[kTileKeys],
                               RowState* states,
                               BFloat16 (*weights)[kTileKeys],
                               float* shrinks) {
  __m512 lanes[kTileRows];
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
    lanes[r] =
        r < kRows
            ? finish_scores(
                  args, masks.visible[r], masks.slope[r], begin - masks.position[r], scores[r])
            : _mm512_setzero_ps();
  }
  alignas(16) float tops[kTileRows];
  _mm_store_ps(tops, _mm_ceil_ps(combine_lanes_of_4<Max>(lanes[0], lanes[1], lanes[2], lanes[3])));
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    tops[r] = std::max(tops[r], states[r].top);
    lanes[r] = weigh_keys(scores[r], masks.visible[r], tops[r], weights[r]);
  }
  alignas(16) float totals[kTileRows];
  _mm_store_ps(totals, combine_lanes_of_4<Add>(lanes[0], lanes[1], lanes[2], lanes[3]));
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    shrinks[r] = states[r].top == tops[r] ? 1.0F : std::exp2(states[r].top - tops[r]);
    states[r] = {tops[r], states[r].total * shrinks[r] + totals[r]};
  }
}

inline void load_queries(const RaggedAttentionArgs& args, const AttentionTask& task, Space& space) {
  const int64_t head_dim = args.q.shape[2];
  BFloat16* to = space.queries;
  for (int64_t t = task.begin; t < task.end; ++t) {
    const BFloat16* from = args.q.row<BFloat16>(t) + task.kv_head * group_size(args) * head_dim;
    for (int64_t g = 0; g < group_size(args); ++g, from += head_dim, to += space.key_dim) {
      std::copy_n(from, head_dim, to);
      std::fill(to + head_dim, to + space.key_dim, BFloat16());
    }
  }
}

template <typename Out>
void store_rows(const RaggedAttentionArgs& args, const AttentionTask& task, const Space& space) {
  const int64_t width = args.out.shape[2];
  int64_t row = 0;
  for (int64_t t = task.begin; t < task.end; ++t) {
    for (int64_t g = 0; g < group_size(args); ++g, ++row) {
      const int64_t head = task.kv_head * group_size(args) + g;
      const RowState& state = space.rows.states[row];
      const float* sums = space.rows.sums + row * space.value_dim;
      const bool saw_nothing = state.top == kNegativeInfinity;
      const __m512 total = _mm512_set1_ps(saw_nothing ? 1.0F : state.total);
      Out* out = args.out.row<Out>(t) + head * width;
      for (int64_t i = 0; i < width; i += kLanes) {
        store_upto(_mm512_div_ps(_mm512_loadu_ps(sums + i), total), out + i, width - i);
      }
      if (args.lse.empty()) continue;
      args.lse.row<float>(t)[head] =
          saw_nothing ? kNegativeInfinity : state.top * kLn2 + std::log(state.total);
    }
  }
}

// What start_rows() made of the sinks, as this kernel has states: powers of two.
inline void convert_sinks(const RaggedAttentionArgs& args, const AttentionTask& task, Space& space) {
  if (args.sinks.empty() || args.phase == AttentionPhase::kRest) return;
  for (int64_t row = 0; row < num_rows(args, task); ++row) {
    const float sink = space.rows.states[row].top * kLog2E;
    const float top = std::ceil(sink);
    space.rows.states[row] = {top, std::exp2(sink - top)};
  }
}

}  // namespace lamina::kernels::cpu::avx512
LAMINA_END_AVX512
