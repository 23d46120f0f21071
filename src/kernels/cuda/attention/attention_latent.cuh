// Attention over latent keys: of 576 elements, of which the first 512 are the value too, one KV
// head for up to 128 heads. Another multiplier beside attention_multiplier.cuh, for the same
// loader, queue and partials. A tile of keys is in shared memory once, for scores and sums.
//
// Sums of 64 rows by 512 columns fill half of the registers, so each warp has 64 columns of all
// rows. Scores go round by round, of 64 keys each: a warp computes them for some rows and keys and
// hands their weights to all warps through shared memory. With few rows it takes more keys, but
// half of their elements, and adds the other half from its partner: it loads less that way.
#pragma once

#include "kernels/cuda/attention/attention_results.cuh"
#include "kernels/cuda/attention/attention_shared.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
struct LatentShared;
template <typename Traits>
class LatentMultiplier;

template <typename ElementType, int kItemRows>
struct LatentTraits {
  using Element = ElementType;
  using Shared = LatentShared<LatentTraits>;
  using Multiplier = LatentMultiplier<LatentTraits>;
  using Uncoded = LatentTraits;
  static constexpr int kDim = kLatentKeyDim;
  static constexpr int kValueDim = kLatentValueDim;
  static constexpr int kRows = kItemRows;
  static constexpr int kComputeWarps = 8;
  static constexpr int kComputeThreads = kComputeWarps * 32;
  static constexpr int kThreads = kComputeThreads + 32;
  static constexpr int kBlocksPerSm = 1;
  static constexpr bool kHasFinisher = false;
  static constexpr bool kValuesInKeys = true;
  static constexpr bool kIsCoded = false;
  static constexpr int kScaleBytes = 0;
  // Heads past an item's rows read the same keys in other items.
  static constexpr uint64_t kKeysPolicy = kRows > kNarrowRows ? kEvictNormal : kEvictFirst;
  static constexpr int kQuerySlots = kRows > kNarrowRows ? 1 : 2;  // 64 rows leave room for one
  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(Element));
  static constexpr int kQueryBytes = kRowBytes;
  static constexpr int kQueryStride = kQueryBytes + 16;  // rows start in different banks

  // Tiles are small, so that a place is free again soon; a round takes several.
  static constexpr int kTileKeys = 16;
  static constexpr int kStageBytes = kTileKeys * kRowBytes;
  static constexpr int kRoundKeys = 64;
  static constexpr int kRoundTiles = kRoundKeys / kTileKeys;
  static constexpr int kFewestStages = kRoundTiles;

  // Who computes which scores of a round: a warp has one part of the rows, of the keys and of the
  // elements.
  static constexpr int kElementParts = kRows > kNarrowRows ? 1 : 2;
  static constexpr int kRowParts = kRows / 16;
  static constexpr int kKeyParts = kComputeWarps / kElementParts / kRowParts;
  static constexpr int kPartKeys = kRoundKeys / kKeyParts;
  static constexpr int kPartTiles = kPartKeys / kTileKeys;
  // Of the part's scores a warp ends up with those of its own keys: it and the others with the same
  // rows have a slot each.
  static constexpr int kOwnKeys = kPartKeys / kElementParts;
  static constexpr int kSlots = kKeyParts * kElementParts;

  static constexpr int kWarpColumns = kValueDim / kComputeWarps;
  static_assert(kRowParts * kKeyParts * kElementParts == kComputeWarps);
  static_assert(kPartTiles > 0 && (kElementParts == 1 || kOwnKeys == 8));
  static_assert(kWarpColumns * sizeof(Element) == 128, "chunks change places within 128 bytes");
};

// Shared memory: this, then params.num_stages tiles.
template <typename Traits>
struct alignas(128) LatentShared : AttentionIntake<Traits> {
  // Half sums of scores, for the warp whose keys they are of.
  float4 exchange[Traits::kElementParts > 1 ? Traits::kComputeWarps : 1][32];
  // The weights of a round.
  alignas(16) typename Traits::Element weights[Traits::kRows][Traits::kRoundKeys];
  // Of each row and slot: the greatest score of a round; at the end of an item the sum of weights.
  alignas(16) float by_slot[Traits::kRows][Traits::kSlots];
  // The item at hand, and the one before while warps still store that; the positions of its first
  // and last row.
  Work works[2];
  int32_t positions[2][2];
  // Of each row: what its sums so far are multiplied by; at the end of an item for the last time.
  float factors[Traits::kRows];

  __device__ unsigned char* tile(int stage) {
    return reinterpret_cast<unsigned char*>(this + 1) + stage * Traits::kStageBytes;
  }
  // Of that key of the round; chunks of rows lie in different banks.
  __device__ typename Traits::Element* weight(int row, int key) {
    return &weights[row][swizzled_chunk(Traits::kRoundKeys / 8, row, key / 8) * 8 + key % 8];
  }
};

template <typename Traits>
class LatentMultiplier {
 public:
  using Element = typename Traits::Element;

  __device__ LatentMultiplier(const AttentionParams& params, LatentShared<Traits>& shared)
      : params_(params),
        shared_(shared),
        writer_(params),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        slot_(warp_ % Traits::kSlots),
        element_part_(slot_ % Traits::kElementParts),
        first_row_(warp_ / Traits::kSlots * 16) {}

  // Whatever is loaded, until the end comes.
  __device__ void run() {
    for (item_ = 0; begin_item(); item_ ^= 1) {
      clear();
      const int key_end = work().item.key_end;
      for (int key = work().item.key_begin; key < key_end; key += Traits::kRoundKeys) {
        multiply_round(key, key_end);
      }
      store();
    }
  }

 private:
  static constexpr int kPartKeyTiles = Traits::kPartKeys / 8;               // of scores, n8
  static constexpr int kOwnKeyTiles = Traits::kOwnKeys / 8;                 // of those
  static constexpr int kRowTiles = Traits::kRows / 16;                      // of sums, m16
  static constexpr int kColumnTiles = Traits::kWarpColumns / 8;             // of sums, n8
  static constexpr int kSteps = Traits::kDim / 16 / Traits::kElementParts;  // k16
  static constexpr int kChunks = Traits::kRowBytes / 16;
  static constexpr int kBlockBarrier = 1;
  static constexpr int kFirstPairBarrier = 2;
  using PartScores = float[kPartKeyTiles][4];

  // Waits for the next one; false if there is none. What is known of it is in shared memory, since
  // registers hold sums.
  __device__ bool begin_item() {
    const int slot = query_counter_.idx;
    shared_.queries_full[slot].wait(query_counter_.parity);
    if (shared_.loaded[slot].is_end()) return false;
    if (threadIdx.x == 0) {
      shared_.works[item_] = shared_.loaded[slot];
      shared_.positions[item_][0] = position(0);
      shared_.positions[item_][1] = position(work().item.num_rows - 1);
    }
    sync_some<kBlockBarrier>(Traits::kComputeThreads);
    return true;
  }

  __device__ const Work& work() const { return shared_.works[item_]; }

  __device__ int position(int row) const {
    const int group = params_.num_heads / params_.num_kv_heads;
    return work().item.first_position + (work().item.row_begin + row) / group;
  }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      max_[i] = -INFINITY;
      total_[i] = 0.0F;
    }
#pragma unroll
    for (auto& row : sums_) {
#pragma unroll
      for (auto& sums : row) {
#pragma unroll
        for (float& sum : sums) sum = 0.0F;
      }
    }
  }

  // Keys from `key` on. All warps wait for each other twice: the greatest scores are there, the
  // weights are there.
  __device__ void multiply_round(int key, int key_end) {
    const int tiles =
        min(Traits::kRoundTiles, (key_end - key + Traits::kTileKeys - 1) / Traits::kTileKeys);
    PartScores scores;  // own ones first
    multiply_keys(tiles, scores);
    if (key + Traits::kRoundKeys >= key_end) give_queries_back();
    if constexpr (Traits::kElementParts > 1) add_partner(scores);
    adjust(key + own_key(), scores);
    mask(key + own_key(), key_end, scores);
    share_greatest(scores);
    sync_some<kBlockBarrier>(Traits::kComputeThreads);
    weigh(scores);
    sync_some<kBlockBarrier>(Traits::kComputeThreads);
    rescale();
    multiply_values(key, key_end, tiles);
    for (int i = 0; i < tiles; ++i) counter_.advance(params_.num_stages);
  }

  // The stage with tile `idx` of the round: waits for it.
  __device__ int wait_for_tile(int idx) const {
    const int stage = counter_.idx + idx;
    const bool wraps = stage >= params_.num_stages;
    const int place = wraps ? stage - params_.num_stages : stage;
    shared_.full[place].wait(counter_.parity ^ (wraps ? 1 : 0));
    return place;
  }

  __device__ void give_queries_back() {
    shared_.queries_empty[query_counter_.idx].arrive();
    query_counter_.advance(Traits::kQuerySlots);
  }

  // ---- Scores

  // Where the warp's own keys begin in a round.
  __device__ int own_key() const { return slot_ * Traits::kOwnKeys; }

  // For load_matrices(): the row of a tile that this lane addresses. Where a partner has the other
  // keys of the tile, own ones come first: so it is known in advance which registers hold them.
  __device__ int key_row() const { return (lane_ / 16 ^ element_part_) * 8 + lane_ % 8; }

  // Parts of the elements alternate, 16 elements each. Chunks change places within each 128 bytes,
  // so the steps of one such group have the places that those of every other one have.
  __device__ void multiply_keys(int tiles, PartScores& scores) const {
#pragma unroll
    for (auto& each : scores) {
#pragma unroll
      for (float& score : each) score = 0.0F;
    }
    constexpr int kParts = Traits::kElementParts;
    constexpr int kStepsPerGroup = 4 / kParts;  // of eight chunks
    const int chunk = element_part_ * 2 + lane_ / 8 % 2;
    uint32_t chunks[kStepsPerGroup];
#pragma unroll
    for (int i = 0; i < kStepsPerGroup; ++i) {
      chunks[i] = swizzled_chunk(kChunks, key_row(), chunk + i * 2 * kParts) * 16;
    }
    const uint32_t queries =
        shared_address(shared_.queries[query_counter_.idx][first_row_ + lane_ % 16]) +
        element_part_ * 32 + lane_ / 16 * 16;
    uint32_t keys[Traits::kPartTiles];
#pragma unroll
    for (int i = 0; i < Traits::kPartTiles; ++i) {
      // What is not there is not seen either: any tile will do.
      const int tile = min(slot_ / kParts * Traits::kPartTiles + i, tiles - 1);
      keys[i] = shared_address(shared_.tile(wait_for_tile(tile)) + key_row() * Traits::kRowBytes);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t query[4];
      load_matrices(query, queries + step * 32 * kParts);
#pragma unroll
      for (int i = 0; i < Traits::kPartTiles; ++i) {
        uint32_t key[4];
        load_matrices(key, keys[i] + chunks[step % kStepsPerGroup] + step / kStepsPerGroup * 128);
        multiply_add<Element>(scores[2 * i], query, key[0], key[1]);
        multiply_add<Element>(scores[2 * i + 1], query, key[2], key[3]);
      }
    }
  }

  // Gives the partner, which has the other half of the elements, what it lacks of its keys' scores,
  // and takes the same from it.
  __device__ void add_partner(PartScores& scores) {
    const auto& theirs = scores[kOwnKeyTiles];
    shared_.exchange[warp_ ^ 1][lane_] = {theirs[0], theirs[1], theirs[2], theirs[3]};
    sync_some(kFirstPairBarrier + warp_ / 2, 64);
    const float4 other = shared_.exchange[warp_][lane_];
    scores[0][0] += other.x;
    scores[0][1] += other.y;
    scores[0][2] += other.z;
    scores[0][3] += other.w;
  }

  // Calls body(score, i of own_row(i), offset of its key from the first own one) for each.
  template <typename Body>
  __device__ void for_each_score(PartScores& scores, const Body& body) const {
#pragma unroll
    for (int n = 0; n < kOwnKeyTiles; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) body(scores[n][j], j / 2, n * 8 + lane_ % 4 * 2 + j % 2);
    }
  }

  // The row of the item that is this lane's i-th of two among those of its scores.
  __device__ int own_row(int i) const { return first_row_ + i * 8 + lane_ / 4; }

  // Raw products to scores, to base 2.
  __device__ void adjust(int first_key, PartScores& scores) const {
    const float factor = params_.scale * kLog2e;
    if (params_.soft_cap > 0.0F) {
      for_each_score(scores, [&](float& score, int /*i*/, int /*key*/) {
        score = params_.soft_cap * kLog2e * tanh_fast(score * factor, params_.soft_cap);
      });
    } else {
      for_each_score(scores, [&](float& score, int /*i*/, int /*key*/) { score *= factor; });
    }
    if (params_.alibi_slopes == nullptr) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = min(own_row(i), work().item.num_rows - 1);
      const float slope = params_.alibi_slopes[query_place(params_, work(), row).head] * kLog2e;
      const int distance = first_key - position(row);
      for_each_score(scores, [&](float& score, int of, int key) {
        if (of == i) score += slope * static_cast<float>(distance + key);
      });
    }
  }

  // tanh(x / cap), of x to base 2, without a call for which sums would have to leave registers.
  __device__ static float tanh_fast(float x, float cap) {
    return 1.0F - __fdividef(2.0F, 1.0F + exp2_fast(__fdividef(2.0F * x, cap)));
  }

  // Takes what is not seen out. Most rounds are seen by all rows.
  __device__ void mask(int first_key, int key_end, PartScores& scores) const {
    const uint32_t missing = find_missing(first_key, key_end);
    const auto& [first_position, last_position] = shared_.positions[item_];
    const bool sees_all = missing == 0 &&
                          first_key + Traits::kOwnKeys <= min(key_end, first_position + 1) &&
                          (params_.window == 0 || first_key > last_position - params_.window);
    if (sees_all) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = position(own_row(i));
      const int end = min(key_end, at + 1) - first_key;
      const int begin = params_.window > 0 ? at - params_.window + 1 - first_key : 0;
      for_each_score(scores, [&](float& score, int of, int key) {
        if (of != i) return;
        const bool is_missing = (missing >> key / Traits::kTileKeys & 1) != 0;
        if (is_missing || key >= end || key < begin) score = -INFINITY;
      });
    }
  }

  // Bit i: the i-th tile with own keys, the first of which is `first_key`, is not here.
  __device__ uint32_t find_missing(int first_key, int key_end) const {
    uint32_t missing = 0;
#pragma unroll
    for (int offset = 0; offset < Traits::kOwnKeys; offset += Traits::kTileKeys) {
      if (first_key + offset >= key_end) break;
      const int tile = (own_key() + offset) / Traits::kTileKeys;
      missing |= shared_.missing[wait_for_tile(tile)] << offset / Traits::kTileKeys;
    }
    return missing;
  }

  // ---- Weights

  __device__ void share_greatest(const PartScores& scores) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float greatest = -INFINITY;
#pragma unroll
      for (int n = 0; n < kOwnKeyTiles; ++n) {
        greatest = fmaxf(greatest, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
      }
      greatest = fmaxf(greatest, __shfl_xor_sync(~0U, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(~0U, greatest, 2));
      if (lane_ % 4 == 0) shared_.by_slot[own_row(i)][slot_] = greatest;
    }
  }

  // Of all slots.
  template <typename Join>
  __device__ float join_slots(int row, const Join& join) const {
    float joined = shared_.by_slot[row][0];
#pragma unroll
    for (int slot = 1; slot < Traits::kSlots; ++slot) {
      joined = join(joined, shared_.by_slot[row][slot]);
    }
    return joined;
  }

  // Scores to weights, which all warps get, and totals so far to the new greatest score.
  __device__ void weigh(PartScores& scores) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = own_row(i);
      const float before = max_[i];
      max_[i] = fmaxf(before, join_slots(row, [](float a, float b) { return fmaxf(a, b); }));
      const float base = max_[i] == -INFINITY ? 0.0F : max_[i];
      const float factor = max_[i] > before ? exp2_fast(before - base) : 1.0F;
      if (slot_ == 0 && lane_ % 4 == 0) shared_.factors[row] = factor;
      total_[i] *= factor;
#pragma unroll
      for (int n = 0; n < kOwnKeyTiles; ++n) {
        const float first = exp2_fast(scores[n][2 * i] - base);
        const float second = exp2_fast(scores[n][2 * i + 1] - base);
        total_[i] += first + second;
        *reinterpret_cast<uint32_t*>(shared_.weight(row, own_key() + n * 8 + lane_ % 4 * 2)) =
            pack_pair<Element>(first, second);
      }
    }
  }

  // ---- Sums

  // This lane's rows among those of its sums: lane / 4 and 8 more of each 16.
  __device__ int sum_row(int m, int i) const { return m * 16 + i * 8 + lane_ / 4; }

  __device__ void rescale() {
    float factors[kRowTiles][2];
    bool changes = false;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        factors[m][i] = shared_.factors[sum_row(m, i)];
        changes |= factors[m][i] != 1.0F;
      }
    }
    if (!__any_sync(~0U, changes)) return;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (auto& sums : sums_[m]) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[j] *= factors[m][j / 2];
      }
    }
  }

  __device__ void multiply_values(int key, int key_end, int tiles) {
#pragma unroll 1
    for (int idx = 0; idx < tiles; ++idx) {
      const int stage = wait_for_tile(idx);
      unsigned char* columns = shared_.tile(stage) + warp_ * 128;
      const int num_seen =
          shared_.missing[stage] != 0 ? 0 : key_end - key - idx * Traits::kTileKeys;
      if (num_seen < Traits::kTileKeys) clear_values(columns, num_seen);
      add_values(shared_address(columns), idx);
      shared_.empty[stage].arrive();
    }
  }

  // Values that no row sees may be anything, and NaN times 0 is NaN: zeros instead, by each warp in
  // its columns. Nobody needs them as keys any more.
  __device__ void clear_values(unsigned char* columns, int first) {
    for (int i = first * 8 + lane_; i < Traits::kTileKeys * 8; i += 32) {
      *reinterpret_cast<uint4*>(columns + i / 8 * Traits::kRowBytes + i % 8 * 16) =
          uint4{0, 0, 0, 0};
    }
    fence_before_bulk_copies();
    __syncwarp();
  }

  __device__ void add_values(uint32_t columns, int tile) {
    uint32_t weights[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      load_matrices(weights[m],
                    shared_address(shared_.weight(m * 16 + lane_ % 16,
                                                  tile * Traits::kTileKeys + lane_ / 16 * 8)));
    }
    const int row = lane_ % 16;
#pragma unroll
    for (int column = 0; column < kColumnTiles; column += 2) {
      uint32_t values[4];
      load_transposed_matrices(values,
                               columns + row * Traits::kRowBytes +
                                   swizzled_chunk(kChunks, row, column + lane_ / 16) * 16);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        multiply_add<Element>(sums_[m][column], weights[m], values[0], values[1]);
        multiply_add<Element>(sums_[m][column + 1], weights[m], values[2], values[3]);
      }
    }
  }

  // ---- What comes of an item

  __device__ void store() {
    share_totals();
    sync_some<kBlockBarrier>(Traits::kComputeThreads);
    begin_rows();
    sync_some<kBlockBarrier>(Traits::kComputeThreads);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = sum_row(m, i);
        if (row >= work().item.num_rows) continue;
        const RowTarget target = writer_.find_row(work(), row, shared_.factors[row]);
#pragma unroll
        for (int column = 0; column < kColumnTiles; ++column) {
          const auto& sums = sums_[m][column];
          writer_.store(target,
                        warp_ * Traits::kWarpColumns + column * 8 + lane_ % 4 * 2,
                        {sums[2 * i], sums[2 * i + 1]});
        }
      }
    }
  }

  __device__ void share_totals() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float total = total_[i];
      total += __shfl_xor_sync(~0U, total, 1);
      total += __shfl_xor_sync(~0U, total, 2);
      if (lane_ % 4 == 0) shared_.by_slot[own_row(i)][slot_] = total;
    }
  }

  // By one thread a row.
  __device__ void begin_rows() {
    if (slot_ != 0 || lane_ % 4 != 0) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = own_row(i);
      if (row >= work().item.num_rows) continue;
      const float total = join_slots(row, [](float a, float b) { return a + b; });
      shared_.factors[row] = writer_.begin_row(work(), row, {max_[i], total}).factor;
    }
  }

  const AttentionParams& params_;
  LatentShared<Traits>& shared_;
  const ResultWriter<Traits> writer_;
  const int warp_;
  const int lane_;
  const int slot_;          // among the warps with the same rows
  const int element_part_;  // of its scores
  const int first_row_;     // the same
  int item_ = 0;            // of the two in shared memory
  RingCounter counter_;
  RingCounter query_counter_;
  float max_[2];    // greatest score so far, of all keys
  float total_[2];  // sum of weights so far, of this lane's keys
  float sums_[kRowTiles][kColumnTiles][4];
};

}  // namespace lamina::kernels::cuda
