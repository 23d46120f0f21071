// The warps that multiply: scores of the rows of an item with keys, their softmax as it goes on,
// and sums of values.
#pragma once

#include "kernels/cuda/attention/attention_codes.cuh"
#include "kernels/cuda/attention/attention_results.cuh"
#include "kernels/cuda/attention/attention_shared.cuh"

namespace lamina::kernels::cuda {

// What a thread knows of its two rows, which are lane / 4 and 8 more of the warp's 16.
struct ThreadRows {
  int row[2];        // of the item
  int position[2];   // of the query; -1 past the item's last row: sees nothing
  int first_key[2];  // that the window leaves
  float slope[2];    // of ALiBi, to base 2
};

template <typename Traits>
class AttentionMultiplier {
 public:
  using Element = typename Traits::Element;

  __device__ AttentionMultiplier(const AttentionParams& params, AttentionShared<Traits>& shared)
      : params_(params),
        shared_(shared),
        writer_(params),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32) {}

  // Whatever is loaded, until the end comes.
  __device__ void run() {
    while (true) {
      const int slot = query_counter_.idx;
      shared_.queries_full[slot].wait(query_counter_.parity);
      const Work work = shared_.loaded[slot];
      if (work.is_end()) break;
      multiply(work);
      shared_.queries_empty[slot].arrive();
      query_counter_.advance(Traits::kQuerySlots);
      if constexpr (Traits::kHasFinisher) {
        hand_on(work);
      } else {
        store_own_sums(work);
      }
    }
    if constexpr (Traits::kHasFinisher) hand_on(Work::end());
  }

 private:
  static constexpr int kKeyTiles = Traits::kWarpKeys / 8;  // of scores, n8
  static constexpr int kValueTiles = Traits::kDim / 8;     // of sums, n8
  static constexpr int kSteps = Traits::kDim / 16;         // of products with keys, k16
  using Pairs = CodePairs<typename Traits::Cached>;        // where there are codes

  __device__ void multiply(const Work& work) {
    if constexpr (Traits::kIsCoded) prepare_queries(work);
    find_rows(work);
    clear();
    const AttentionItem& item = work.item;
    for (int key = item.key_begin; key < item.key_end; key += kTileKeys) {
      multiply_tile(key, item.key_end);
    }
  }

  // Brings the queries to the order in which codes are multiplied.
  __device__ void prepare_queries(const Work& work) {
    constexpr int kGroups = Traits::kDim / 16;
    for (int i = threadIdx.x; i < work.item.num_rows * kGroups; i += Traits::kComputeThreads) {
      unsigned char* query = shared_.queries[query_counter_.idx][i / kGroups];
      prepare_query<typename Traits::Cached>(query + i % kGroups * 32);
    }
    fence_before_bulk_copies();
    sync_some<1>(Traits::kComputeThreads);
  }

  // The next tile: waits for it. give_back() frees its place.
  __device__ int take_tile() const {
    shared_.full[counter_.idx].wait(counter_.parity);
    return counter_.idx;
  }
  __device__ void give_back() {
    shared_.empty[counter_.idx].arrive();
    counter_.advance(params_.num_stages);
  }

  __device__ int row_warp() const { return Traits::kRowWarps == 1 ? 0 : warp_; }
  __device__ int key_warp() const { return Traits::kKeyWarps == 1 ? 0 : warp_; }

  __device__ void find_rows(const Work& work) {
    const AttentionItem& item = work.item;
    const int group = params_.num_heads / params_.num_kv_heads;
    lowest_position_ = 0x7ffffffe;
    highest_first_key_ = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = row_warp() * 16 + lane_ / 4 + 8 * i;
      rows_.row[i] = row;
      const bool exists = row < item.num_rows;
      const int of_sequence = item.row_begin + (exists ? row : 0);
      const int token = of_sequence / group;
      const int head = work.head * group + of_sequence % group;
      const int position = item.first_position + token;
      rows_.position[i] = exists ? position : -1;
      rows_.first_key[i] = params_.window > 0 ? position - params_.window + 1 : 0;
      rows_.slope[i] = params_.alibi_slopes == nullptr ? 0.0F : params_.alibi_slopes[head] * kLog2e;
      if (exists) {
        lowest_position_ = min(lowest_position_, rows_.position[i]);
        highest_first_key_ = max(highest_first_key_, rows_.first_key[i]);
      }
    }
    // A warp decides together whether a tile has to be looked at key by key.
    lowest_position_ = __reduce_min_sync(~0U, lowest_position_);
    highest_first_key_ = __reduce_max_sync(~0U, highest_first_key_);
  }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      max_[i] = -INFINITY;
      total_[i] = 0.0F;
    }
#pragma unroll
    for (auto& sums : sums_) {
#pragma unroll
      for (float& sum : sums) sum = 0.0F;
    }
  }

  __device__ void multiply_tile(int tile_key, int key_end) {
    const int first = key_warp() * Traits::kWarpKeys;  // of the tile
    const int key = tile_key + first;
    float scores[kKeyTiles][4];
    const int keys = take_tile();
    multiply_keys(shared_address(shared_.tile(keys)), first, scores);
    if constexpr (Traits::kIsCoded) {
      scale_by_key<false>(shared_.scales(keys) + first, Pairs::kSumFactor, scores);
    }
    const uint32_t missing = shared_.missing[keys];
    give_back();
    adjust(key, scores);
    const bool sees_all = missing == 0 &&
                          key + Traits::kWarpKeys <= min(key_end, lowest_position_ + 1) &&
                          key >= highest_first_key_;
    if (!sees_all) mask(key, tile_key, missing, key_end, scores);
    weigh(scores);
    const int values = take_tile();
    if constexpr (Traits::kIsCoded) {
      scale_by_key<true>(shared_.scales(values) + first, Pairs::kFactor, scores);
    } else if (missing != 0 || tile_key + kTileKeys > key_end) {
      clear_values(shared_.tile(values), tile_key, missing, key_end);
    }
    multiply_values(shared_address(shared_.tile(values)), first, scores);
    give_back();
  }

  __device__ uint32_t chunk_address(uint32_t tile, int row, int chunk) const {
    return tile + row * Traits::kRowBytes + swizzled_chunk(Traits::kRowBytes / 16, row, chunk) * 16;
  }

  __device__ void multiply_keys(uint32_t tile, int first, float (&scores)[kKeyTiles][4]) const {
#pragma unroll
    for (int i = 0; i < kKeyTiles; i += 2) {
      for (float& score : scores[i]) score = 0.0F;
      for (float& score : scores[i + 1]) score = 0.0F;
    }
    const int row = first + (Traits::kIsCoded ? lane_ % 16 : lane_ % 8 + lane_ / 16 * 8);
    const uint32_t queries =
        shared_address(shared_.queries[query_counter_.idx][row_warp() * 16 + lane_ % 16]) +
        lane_ / 16 * 16;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t query[4];
      load_matrices(query, queries + step * 32);
#pragma unroll
      for (int i = 0; i < kKeyTiles; i += 2) {
        uint32_t keys[4];
        load_keys(keys, tile, row + i * 8, step);
        multiply_add<Element>(scores[i], query, keys[0], keys[1]);
        multiply_add<Element>(scores[i + 1], query, keys[2], keys[3]);
      }
    }
  }

  // 16 elements of 16 keys, of which this lane addresses `row`.
  __device__ void load_keys(uint32_t (&keys)[4], uint32_t tile, int row, int step) const {
    if constexpr (Traits::kIsCoded) {
      uint32_t codes[2];
      load_matrices(codes, chunk_address(tile, row, step));
      Pairs::widen(codes[0], keys[0], keys[1]);
      Pairs::widen(codes[1], keys[2], keys[3]);
    } else {
      load_matrices(keys, chunk_address(tile, row, step * 2 + lane_ / 8 % 2));
    }
  }

  // Scores, or weights, times the scales of their keys and a factor. Scales of keys that are not
  // seen may be anything: their scores are taken out afterwards, their weights stay 0.
  template <bool kAreWeights>
  __device__ void scale_by_key(const float* scales,
                               float factor,
                               float (&scores)[kKeyTiles][4]) const {
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i) {
      const auto pair = *reinterpret_cast<const float2*>(scales + i * 8 + lane_ % 4 * 2);
      const float scaled[2] = {pair.x * factor, pair.y * factor};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!kAreWeights || scores[i][j] != 0.0F) scores[i][j] *= scaled[j % 2];
      }
    }
  }

  // Raw products to scores, to base 2.
  __device__ void adjust(int key, float (&scores)[kKeyTiles][4]) const {
    const float factor = params_.scale * kLog2e;
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float& score = scores[i][j];
        if (params_.soft_cap > 0.0F) {
          score = params_.soft_cap * kLog2e * tanhf(score * params_.scale / params_.soft_cap);
        } else {
          score *= factor;
        }
        if (params_.alibi_slopes != nullptr) {
          const int own_key = key + i * 8 + lane_ % 4 * 2 + j % 2;
          score += rows_.slope[j / 2] * static_cast<float>(own_key - rows_.position[j / 2]);
        }
      }
    }
  }

  // Blocks of a tile have 16, 32 or 64 keys.
  __device__ bool is_missing(int key_in_tile, uint32_t missing) const {
    const int shift = __ffs(min(params_.block_size, kTileKeys)) - 1;
    return (missing >> (key_in_tile >> shift) & 1) != 0;
  }

  __device__ void mask(
      int key, int tile_key, uint32_t missing, int key_end, float (&scores)[kKeyTiles][4]) const {
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int own_key = key + i * 8 + lane_ % 4 * 2 + j % 2;
        const int own = j / 2;
        const bool is_seen = own_key < key_end && own_key <= rows_.position[own] &&
                             own_key >= rows_.first_key[own] &&
                             !is_missing(own_key - tile_key, missing);
        if (!is_seen) scores[i][j] = -INFINITY;
      }
    }
  }

  // Values that no row sees may be anything, and NaN times 0 is NaN: zeros instead.
  __device__ void clear_values(unsigned char* tile, int tile_key, uint32_t missing, int key_end) {
    constexpr int kChunks = Traits::kRowBytes / 16;
    constexpr int kKeys = kTileKeys / Traits::kComputeWarps;
    for (int i = lane_; i < kKeys * kChunks; i += 32) {
      const int row = warp_ * kKeys + i / kChunks;
      if (tile_key + row < key_end && !is_missing(row, missing)) continue;
      *reinterpret_cast<uint4*>(tile + row * Traits::kRowBytes + i % kChunks * 16) =
          uint4{0, 0, 0, 0};
    }
    fence_before_bulk_copies();
    if constexpr (Traits::kKeyWarps == Traits::kComputeWarps) {
      __syncwarp();  // a warp clears what it reads
    } else {
      sync_some<1>(Traits::kComputeThreads);
    }
  }

  // Scores to weights; sums and totals so far to the new greatest score.
  __device__ void weigh(float (&scores)[kKeyTiles][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float greatest = max_[i];
#pragma unroll
      for (int t = 0; t < kKeyTiles; ++t) {
        greatest = fmaxf(greatest, fmaxf(scores[t][2 * i], scores[t][2 * i + 1]));
      }
      greatest = fmaxf(greatest, __shfl_xor_sync(~0U, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(~0U, greatest, 2));
      const float base = greatest == -INFINITY ? 0.0F : greatest;
      const float factor = exp2_fast(max_[i] - base);
      const bool is_new = greatest > max_[i];
      max_[i] = greatest;
      total_[i] *= factor;
#pragma unroll
      for (int t = 0; t < kKeyTiles; ++t) {
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          scores[t][j] = exp2_fast(scores[t][j] - base);
          total_[i] += scores[t][j];
        }
      }
      if (!__any_sync(~0U, is_new)) continue;
#pragma unroll
      for (auto& sums : sums_) {
        sums[2 * i] *= factor;
        sums[2 * i + 1] *= factor;
      }
    }
  }

  __device__ void multiply_values(uint32_t tile, int first, const float (&weights)[kKeyTiles][4]) {
#pragma unroll
    for (int i = 0; i < kKeyTiles; i += 2) {
      const uint32_t pairs[4] = {pack_pair<Element>(weights[i][0], weights[i][1]),
                                 pack_pair<Element>(weights[i][2], weights[i][3]),
                                 pack_pair<Element>(weights[i + 1][0], weights[i + 1][1]),
                                 pack_pair<Element>(weights[i + 1][2], weights[i + 1][3])};
      const int row = first + i * 8 + lane_ % 16;
#pragma unroll
      for (int column = 0; column < kValueTiles; column += 2) {
        uint32_t values[4];
        load_values(values, tile, row, column);
        multiply_add<Element>(sums_[column], pairs, values[0], values[1]);
        multiply_add<Element>(sums_[column + 1], pairs, values[2], values[3]);
      }
    }
  }

  // 16 columns, the first of which is `column` eights, of 16 values, of which this lane addresses
  // `row`. Of codes the even columns come first.
  __device__ void load_values(uint32_t (&values)[4], uint32_t tile, int row, int column) const {
    if constexpr (Traits::kIsCoded) {
      uint32_t codes[2];
      load_transposed_matrices(codes, chunk_address(tile, row, column / 2));
      Pairs::widen(codes[0], values[0], values[2]);
      Pairs::widen(codes[1], values[1], values[3]);
    } else {
      load_transposed_matrices(values, chunk_address(tile, row, column + lane_ / 16));
    }
  }

  // Calls use(column, pair) for this lane's sums of its i-th row, times what codes lack.
  template <typename Use>
  __device__ void for_each_sum(int i, const Use& use) const {
#pragma unroll
    for (int t = 0; t < kValueTiles; ++t) {
      if constexpr (Traits::kIsCoded) {
        constexpr float kFactor = Pairs::kSumFactor;
        const int own = 2 * i + t % 2;  // of both tiles of 16 columns
        use(t / 2 * 16 + lane_ % 4 * 4 + t % 2 * 2,
            float2{kFactor * sums_[t / 2 * 2][own], kFactor * sums_[t / 2 * 2 + 1][own]});
      } else {
        use(t * 8 + lane_ % 4 * 2, float2{sums_[t][2 * i], sums_[t][2 * i + 1]});
      }
    }
  }

  // ---- What comes of an item

  // The four lanes of a row have summed the weights of different keys.
  __device__ void add_lane_totals() {
#pragma unroll
    for (float& total : total_) {
      total += __shfl_xor_sync(~0U, total, 1);
      total += __shfl_xor_sync(~0U, total, 2);
    }
  }

  // Adds up the warps' sums in shared memory, one warp after the other, for the finisher.
  __device__ void hand_on(const Work& work) {
    shared_.sums_empty.wait(sums_parity_ ^ 1);
    sums_parity_ ^= 1;
    if (threadIdx.x == 0) shared_.summed = work;
    if (!work.is_end()) add_warp_sums();
    shared_.sums_full.arrive();
  }

  __device__ void add_warp_sums() {
    add_lane_totals();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane_ / 4 + 8 * i;
      if (lane_ % 4 == 0) {
        shared_.maxima[warp_][row] = max_[i];
        shared_.totals[warp_][row] = total_[i];
      }
    }
    sync_some<1>(Traits::kComputeThreads);
    for (int turn = 0; turn < Traits::kKeyWarps; ++turn) {
      if (turn == warp_) add_own_sums(turn == 0);
      if (turn + 1 < Traits::kKeyWarps) sync_some<1>(Traits::kComputeThreads);
    }
  }

  __device__ void add_own_sums(bool is_first) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (rows_.position[i] < 0) continue;
      const int row = lane_ / 4 + 8 * i;
      const float factor = exp2_fast(max_[i] - shared_.greatest_base(row));
      for_each_sum(i, [&](int column, float2 own) {
        auto& sum = *reinterpret_cast<float2*>(&shared_.sums[row][column]);
        const float2 before = is_first ? float2{0.0F, 0.0F} : sum;
        sum = float2{before.x + factor * own.x, before.y + factor * own.y};
      });
    }
  }

  __device__ void store_own_sums(const Work& work) {
    add_lane_totals();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (rows_.position[i] < 0) continue;
      const RowTarget target = writer_.begin_row(work, rows_.row[i], {max_[i], total_[i]});
      for_each_sum(i, [&](int column, float2 sum) { writer_.store(target, column, sum); });
    }
  }

  const AttentionParams& params_;
  AttentionShared<Traits>& shared_;
  const ResultWriter<Traits> writer_;
  const int warp_;
  const int lane_;
  RingCounter counter_;
  RingCounter query_counter_;
  uint32_t sums_parity_ = 0;
  ThreadRows rows_;
  int lowest_position_;    // of the warp's rows
  int highest_first_key_;  // the same
  float max_[2];           // greatest score so far
  float total_[2];         // sum of weights so far, of this lane's keys
  float sums_[kValueTiles][4];
};

}  // namespace lamina::kernels::cuda
