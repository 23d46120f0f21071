// The softmax of attention in pairs of bf16, a tile of 64 keys at a time: what
// ragged_attention_bf16.cc and ragged_attention_amx.cc share beside their tiles. Included there
// only.
#pragma once

#include <cmath>

#include "kernels/cpu/attention_run.h"
#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"

LAMINA_BEGIN_AVX512
namespace lamina::kernels::cpu::avx512 {

// Scores are kept as powers of two, and those of a row refer to an integer power: so a softmax
// weight that is rounded to bf16 is the same but for a factor of two whatever keys were met before.
// A row whose keys are dealt out to several workers comes out as it would in one piece, but for the
// order of f32 sums.
constexpr float kLn2 = 0.693147181F;

// How far, in powers of two, scores may exceed what their row refers to.
constexpr float kHeadroom = 60.0F;

constexpr int64_t kTileRows = 4;  // whose softmax is computed together

// What up to kTileRows rows that are met together have of their own.
struct RowMasks {
  uint64_t visible[kTileRows] = {};
  int64_t position[kTileRows] = {};
  float slope[kTileRows] = {};
};

// Softmax numerators of a row, as bf16; not set at first.
struct RowWeights {
  __m256i of_vector[kKeyVectors];

  // Those of keys 2 i and 2 i + 1.
  [[nodiscard]] HWY_INLINE const void* pair(int64_t i) const {
    return reinterpret_cast<const char*>(of_vector) +
           i * 2 * static_cast<int64_t>(sizeof(BFloat16));
  }
};

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
                                const Tile& tile,
                                uint64_t visible,
                                float slope,
                                int64_t distance,
                                float (&scores)[kTileKeys]) {
  const bool is_bent = args.soft_cap.has_value() || slope != 0.0F;
  const __m512 scale = _mm512_set1_ps(is_bent ? args.scale : args.scale * kLog2E);
  const __m512 hidden = _mm512_set1_ps(kNegativeInfinity);
  __m512 tops = hidden;
#pragma GCC unroll 4
  for (size_t v = 0; v < kKeyVectors; ++v) {
    const auto mask = static_cast<__mmask16>(visible >> (v * kLanes));
    __m512 score = _mm512_mul_ps(_mm512_load_ps(scores + v * kLanes), scale);
    if (tile.key_scales[v] != nullptr) {
      score = _mm512_mul_ps(score, _mm512_loadu_ps(tile.key_scales[v]));
    }
    if (is_bent) {
      score = bend_scores(args, score, slope, distance + static_cast<int64_t>(v) * kLanes);
      score = _mm512_mul_ps(score, _mm512_set1_ps(kLog2E));
    }
    score = _mm512_mask_mov_ps(hidden, mask, score);
    tops = _mm512_max_ps(tops, score);
    _mm512_store_ps(scores + v * kLanes, score);
  }
  return tops;
}

// Softmax numerators of kRows rows, as bf16. totals[r]: a vector whose lanes add up to row r's sum.
template <int kRows>
HWY_INLINE void weigh_keys(const Tile& tile,
                           const RowMasks& masks,
                           const float (&scores)[kTileRows][kTileKeys],
                           const RowState* states,
                           RowWeights (&weights)[kTileRows],
                           __m512 (&totals)[kTileRows]) {
#pragma GCC unroll 4
  for (__m512& total : totals) total = _mm512_setzero_ps();
  // The first keys of all rows first: values can meet them while the others are weighed.
#pragma GCC unroll 4
  for (size_t v = 0; v < kKeyVectors; ++v) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const auto mask = static_cast<__mmask16>(masks.visible[r] >> (v * kLanes));
      const __m512 score = _mm512_load_ps(scores[r] + v * kLanes);
      const __m512 weight = exp2_below(score, _mm512_set1_ps(states[r].top));
      const __m512 seen = _mm512_maskz_mov_ps(mask, weight);
      totals[r] = _mm512_add_ps(totals[r], seen);
      __m512 scaled = seen;
      if (tile.value_scales[v] != nullptr) {
        scaled = _mm512_maskz_mul_ps(mask, seen, _mm512_loadu_ps(tile.value_scales[v]));
      }
      weights[r].of_vector[v] = round_to_bf16(scaled);
    }
  }
}

// Moves a row's reference up to an integer power at or above `score`.
HWY_NOINLINE inline void raise_reference(RowState& state, float* sums, int64_t width, float score) {
  const float top = std::ceil(score);
  const float shrink = std::exp2(state.top - top);
  for (int64_t i = 0; i < width; ++i) sums[i] *= shrink;
  state = {top, state.total * shrink};
}

// Turns dot products of rows [row, row + kRows), which meet a tile from position `begin` on, into
// softmax numerators and updates their states. A reference is left behind the largest score as long
// as numbers are far from overflow: so that numerators seldom wait for the tile's largest score.
template <int kRows>
HWY_INLINE void update_softmax(const RaggedAttentionArgs& args,
                               const Tile& tile,
                               const RowMasks& masks,
                               int64_t begin,
                               int64_t row,
                               const RowSums& rows,
                               float (&scores)[kTileRows][kTileKeys],
                               RowWeights (&weights)[kTileRows]) {
  RowState* states = rows.states + row;
  __m512 lanes[kTileRows];
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
    lanes[r] = r < kRows ? finish_scores(args,
                                         tile,
                                         masks.visible[r],
                                         masks.slope[r],
                                         begin - masks.position[r],
                                         scores[r])
                         : _mm512_set1_ps(kNegativeInfinity);
  }
  alignas(16) float tops[kTileRows];
  _mm_store_ps(tops, combine_lanes_of_4<Max>(lanes[0], lanes[1], lanes[2], lanes[3]));
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    if (tops[r] <= states[r].top + kHeadroom) continue;
    raise_reference(states[r], rows.sums + (row + r) * rows.stride, rows.stride, tops[r]);
  }
  weigh_keys<kRows>(tile, masks, scores, states, weights, lanes);
  alignas(16) float totals[kTileRows];
  _mm_store_ps(totals, combine_lanes_of_4<Add>(lanes[0], lanes[1], lanes[2], lanes[3]));
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) states[r].total += totals[r];
}

// Gives the rows of a task one after the other: what of a tile from position `begin` on they see.
class RowCursor {
 public:
  RowCursor(const RaggedAttentionArgs& args,
            const AttentionTask& task,
            uint64_t held,
            int64_t begin)
      : args_(args), task_(task), held_(held), begin_(begin), position_(task.position) {
    visible_ = visible();
  }

  // The next `count` rows; false if none of them sees any key.
  bool take(int64_t count, RowMasks& masks) {
    uint64_t any = 0;
    for (int64_t r = 0; r < count; ++r) {
      masks.position[r] = position_;
      masks.visible[r] = visible_;
      any |= visible_;
      if (!args_.alibi_slopes.empty()) {
        const int64_t head = task_.kv_head * group_size_ + head_;
        masks.slope[r] = args_.alibi_slopes[static_cast<size_t>(head)];
      }
      if (++head_ < group_size_) continue;
      head_ = 0;
      ++position_;
      visible_ = visible();
    }
    return any != 0;
  }

 private:
  [[nodiscard]] uint64_t visible() const {
    return held_ & bit_range(first_visible(args_, position_) - begin_, position_ + 1 - begin_);
  }

  const RaggedAttentionArgs& args_;
  const AttentionTask& task_;
  uint64_t held_;
  int64_t begin_;
  int64_t position_;
  int64_t group_size_ = group_size(args_);
  int64_t head_ = 0;  // in the group
  uint64_t visible_;
};

template <typename Out>
void store_rows(const RaggedAttentionArgs& args,
                const AttentionTask& task,
                RowRange rows,
                const RowSums& sums) {
  const int64_t width = args.out.shape[2];
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t t = task.begin + row / group_size(args);
    const int64_t head = task.kv_head * group_size(args) + row % group_size(args);
    const RowState& state = sums.states[row];
    const float* from = sums.sums + row * sums.stride;
    const bool saw_nothing = state.top == kNegativeInfinity;
    const __m512 total = _mm512_set1_ps(saw_nothing ? 1.0F : state.total);
    Out* out = args.out.row<Out>(t) + head * width;
    for (int64_t i = 0; i < width; i += kLanes) {
      store_upto(_mm512_div_ps(_mm512_loadu_ps(from + i), total), out + i, width - i);
    }
    if (args.lse.empty()) continue;
    args.lse.row<float>(t)[head] =
        saw_nothing ? kNegativeInfinity : state.top * kLn2 + std::log(state.total);
  }
}

inline AttentionKernel kernel_of(const RaggedAttentionArgs& args,
                                 decltype(AttentionKernel::meet) meet) {
  return {.meet = meet,
          .store = args.out.dtype == DType::kF32 ? store_rows<float> : store_rows<BFloat16>,
          .base = ScoreBase::kTwo};
}

}  // namespace lamina::kernels::cpu::avx512
LAMINA_END_AVX512
