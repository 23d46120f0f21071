// Ragged paged attention: the one attention operator. Each sequence brings 1..T query tokens
// (decode: 1; chunked prefill: more) against its own cached tokens, found through its block table.
// Also the append that precedes it and the merge that joins partial results. Dispatch on device and
// dtype; ref/ is the oracle.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/status.h"
#include "device/stream.h"
#include "kernels/step_tables.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

// The queries of one step, sequence after sequence. Spans outlive the call.
//   Sequence b owns query tokens [query_begin[b], query_begin[b + 1]) of q; its cache holds
//   context_len[b] tokens once this step's are appended; its first query token stands at position
//   context_len[b] - num_queries(b). Its block table is block_tables[b * max_blocks ...]: block i
//   holds positions [i * block_size, (i + 1) * block_size). kNoBlock: another worker holds them.
inline constexpr int32_t kNoBlock = -1;
inline constexpr int64_t kNoSlot = -1;
struct RaggedBatch {
  std::span<const int32_t> query_begin;   // [B + 1], ascending from 0
  std::span<const int32_t> context_len;   // [B]
  std::span<const int32_t> block_tables;  // [B, max_blocks]
  int64_t max_blocks = 0;
  const StepTables* tables = nullptr;  // on CUDA: this batch, brought to the device

  [[nodiscard]] int64_t num_sequences() const { return static_cast<int64_t>(context_len.size()); }
  [[nodiscard]] int64_t num_tokens() const { return query_begin.empty() ? 0 : query_begin.back(); }
};

// How the elements of a block lie within a head.
//   kRows   token after token: [block_size, D]
//   kPairs  for products in pairs of bf16, streams of whole vectors: keys [D / 2, block_size, 2],
//           neighbouring elements of a key side by side; values [block_size / 2, Dv, 2], the same
//           element of neighbouring tokens side by side
//   kSwizzled  as kRows, but the chunks of 16 bytes of a row in an order that its token gives, for
//           GPUs' shared memory: cuda/swizzle.cuh
// Shapes of caches are the same. One cache has one order from its first append on.
enum class KvOrder : uint8_t { kRows, kPairs, kSwizzled };

// What the caller of a cache has to know of it.
struct KvShape {
  DType dtype = DType::kBF16;    // of the cache
  DType q_dtype = DType::kBF16;  // of the queries that will meet it
  int64_t block_size = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;  // 0: values lie in the keys
  Device device = {};
};
// The order that attention on that device reads fastest. Another one than this and kRows is
// refused.
[[nodiscard]] KvOrder preferred_order(const KvShape& shape);

// Writes k and v of this step's tokens into the cache at their places. Writing by place makes a
// replay harmless.
//   k [N, Hkv, D], v [N, Hkv, Dv], any dtype of the float three
//   k_cache [P, Hkv, block_size, D], v_cache [P, Hkv, block_size, Dv]; converted to their dtype
//   order: of both caches; kPairs takes k of the cache's dtype, or quantises
//   slot_mapping [N]: token i goes to offset s % block_size of block s / block_size; no two alike;
//   kNoSlot: another worker holds it
//   tables: on CUDA, of a step with this slot_mapping; it was checked there
// v and v_cache are both empty views where values lie in the keys (latent attention).
// Caches of kI8 or kF8E4M3 are quantised: a row x of a token and head becomes round(x / s), with
// s = max |x| / 127 or / 448 of that row alone (0 where max |x| < 2^-96; NaN where not all of it
// are numbers, and codes are zeros then). These go to
//   k_scales, v_scales [P, Hkv, block_size] f32; v_scales is an empty view where v_cache is
// Empty views for caches of other dtypes.
// Errors: kInvalidArgument on shapes that do not fit, or a slot outside [0, P * block_size)
// that is not kNoSlot.
// Nothing is written then.
struct AppendKvArgs {
  TensorView k;
  TensorView v;
  TensorView k_cache;
  TensorView v_cache;
  std::span<const int64_t> slot_mapping;
  KvOrder order = KvOrder::kRows;
  TensorView k_scales{};
  TensorView v_scales{};
  const StepTables* tables = nullptr;
};
[[nodiscard]] Status append_kv(const AppendKvArgs& args, StreamView stream);

// Causal attention of this step's queries over the cache (append_kv ran before). Keys before a
// sequence's first query were appended before batch.tables was brought up to date for the step: a
// GPU may read them while the call enqueued before this one still runs.
//   q [T, Hq, D] f32, f16 or bf16, RoPE applied; head h reads KV head h / (Hq / Hkv)
//   k_cache [P, Hkv, block_size, D], v_cache [P, Hkv, block_size, Dv], one dtype; k_scales and
//   v_scales as append_kv has them: keys and values are codes times scales
//   out [T, Hq, Dv] f32 or q's dtype, normalised     lse [T, Hq] f32, natural log; empty view where
//   not wanted
// Latent: v_cache is an empty view; a value is the first Dv elements of its key, Dv <= D.
// The score of key j for the query at position i of head h is
//   s = scale * q.k;  s = soft_cap * tanh(s / soft_cap) if there is one;  s += slopes[h] * (j - i)
// window: the query at position i sees keys j with i - window < j <= i.
// sinks: [Hq] scores of a key without a value, which takes part in the softmax: a partial with
// out = 0, lse = sinks[h]. Where attention is split, one part alone is given the sinks.
// Keys in blocks that another worker holds are not seen: what comes out is a partial over the rest.
// A query without a visible key or sink gives out = 0, lse = -inf: the identity of merge_partials.
// f32 accumulation; the order of summation depends only on the positions of query and keys, so a
// result depends neither on the rest of the batch nor on the number of threads. Reads sum(context)
// * Hkv * (D + Dv) elements per query chunk. Errors: kInvalidArgument as for append_kv; nothing is
// written then. Sources: online softmax (arXiv 1805.02867) over paged KV (arXiv 2309.06180); ALiBi
// (arXiv 2108.12409); sinks (arXiv 2309.17453); latent attention (arXiv 2405.04434). A call may be
// split in two: kCached, before this step's keys are appended, meets keys that were there before,
// most of them or none, and leaves its sums in `state`; kRest goes on from there. Together they
// give the bits of the one call on the CPU, and on CUDA the same but for rounding. `out` and `lse`
// are empty views for kCached. On CUDA the batch needs its `tables`, which were checked as the
// batch is here, and are either for whole calls or for phases.
//   state [T, Hq, attention_state_dim(Dv)] f32, its content private to the operator; an empty view
//   for kWhole
enum class AttentionPhase : uint8_t { kWhole, kCached, kRest };
// Two partial sums of a row, each with what it refers to.
inline constexpr int64_t attention_state_dim(int64_t value_dim) {
  return 2 * (value_dim + 2);
}
inline constexpr int64_t attention_state_value_dim(int64_t state_dim) {
  return state_dim / 2 - 2;
}

struct RaggedAttentionArgs {
  TensorView q;
  TensorView k_cache;
  TensorView v_cache;
  TensorView out;
  TensorView lse;
  RaggedBatch batch;
  float scale = 1.0F;
  std::optional<int32_t> window;
  std::optional<float> soft_cap;
  std::span<const float> alibi_slopes;  // [Hq] or empty; memory of the stream's device
  std::span<const float> sinks;         // [Hq] or empty; the same
  AttentionPhase phase = AttentionPhase::kWhole;
  TensorView state{};
  KvOrder order = KvOrder::kRows;
  TensorView k_scales{};
  TensorView v_scales{};
};
[[nodiscard]] Status ragged_attention(const RaggedAttentionArgs& args, StreamView stream);

// into := merge(into, from): the attention over the union of two disjoint key sets.
//   outs [T, H, Dv] f32, lses [T, H] f32. lse = -inf is the identity on either side. Associative up
//   to rounding.
struct AttentionPartial {
  TensorView out;
  TensorView lse;
};
[[nodiscard]] Status merge_partials(const AttentionPartial& into,
                                    const AttentionPartial& from,
                                    StreamView stream);

}  // namespace lamina::kernels
