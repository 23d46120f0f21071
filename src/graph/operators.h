// The operators of a Graph and their attributes. T counts the tokens of a step, S the rows whose
// logits are wanted; both are known only when a step runs. Every operator has one output. Plain
// values.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "graph/weight_source.h"
#include "tensor/dtype.h"
#include "tensor/op_attrs.h"

namespace lamina {

enum class OpKind : uint8_t {
  kInput,   // token_ids, positions [T] i32; logits_rows [S] i32: named by Node::name
  kWeight,  // a parameter; its source says where it is stored

  // Products: they read weights that are worth spreading over devices.
  kEmbedding,   // (table [V, E], ids [T]) -> [T, E]
  kLinear,      // (x [T, K], weight [N, K], optional bias [N]) -> [T, N] = x weight^T + bias
  kHeadLinear,  // (x [T, H, K], weight [H, N, K]) -> [T, H, N]: every head by its own matrix
  kExperts,     // (x [T, K], routes [T, X] f32, gate_up [X, 2 I, K], down [X, K, I], optional
                // gate_up_bias [X, 2 I], then optional down_bias [X, K]) -> [T, K] = sum over
                // experts of route * down(gated activation(gate_up(x)))

  kAttention,  // (q [T, Hq, D], k [T, Hkv, D], v [T, Hkv, Dv], optional sinks [Hq]) ->
               // [T, Hq, Dv]; causal, over the sequence's cache. Latent: v is k itself, of which
               // the first Dv elements count

  // Row by row, small beside the products.
  kNorm,  // (x [T, ..., D], weight [D], optional bias [D]) -> x's shape; last axis. For x [T, H, D]
          // weight and bias may be [H, D]: every head has its own
  kAddNorm,          // (a [T, D], b [T, D], weight, optional bias) -> [T, 2, D]: a + b, its norm
  kAdd,              // (a, b) -> same shape
  kMul,              // (a, b) -> same shape; b may be [T, 1]: one factor for each row
  kScale,            // (x) -> x * factor
  kSoftCap,          // (x) -> cap * tanh(x / cap)
  kActivation,       // (x) -> same shape
  kGatedActivation,  // (x [T, 2, N]) -> [T, N]: the gate in the first half
  kRopeTable,        // (positions [T]) -> [T, R] f32: cos in the first half, sin in the second
  kRope,             // (x [T, H, D], table [T, R]) -> x's shape; rotates the first R of D
  kRoute,   // (logits [T, X] f32, optional bias [X]) -> [T, X] f32: each chosen expert's weight,
            // 0 for the others
  kConcat,  // (a [T, H, A], b [T, H, B]) -> [T, H, A + B]
  kGatherRows,  // (x [T, ...], rows [S]) -> [S, ...]

  // The same memory seen otherwise.
  kReshape,  // (x) -> same elements per row, another row shape
  kColumns,  // (x [T, N, ...]) -> [T, count, ...]: part of axis 1

  // Over the ranks of a tensor-parallel group.
  kAllReduce,  // (x) -> the sum of all ranks' x
  kAllGather,  // (x [T, N]) -> [T, ranks * N]: the ranks' columns side by side
};
std::string_view op_kind_name(OpKind kind);

// Optional on kEmbedding: this rank's rows of a table that is spread over ranks. Ids outside of it
// give zeros, so that an all-reduce makes the look-up whole.
struct EmbeddingAttrs {
  int64_t first_id = 0;
};

// Optional on kLinear: without it the output has x's dtype.
struct LinearAttrs {
  DType out_dtype = DType::kF32;  // x's dtype or kF32: products accumulate in f32 anyway
};

struct ScaleAttrs {
  float factor = 1.0F;
};
struct SoftCapAttrs {
  float cap = 1.0F;
};

struct RopeTableAttrs {
  std::vector<float>
      inv_freq;            // rotary_dim / 2 angular steps per position, scaling already applied
  float magnitude = 1.0F;  // yarn's attention factor: multiplies cos and sin
};
// Optional on kRope: without it element i turns with element i + R / 2.
struct RopeAttrs {
  bool interleaved = false;  // element 2i turns with element 2i + 1
};

struct AttentionAttrs {
  int32_t layer_idx = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;   // of q and k
  int32_t value_dim = 0;  // of v and the output
  // v is the first value_dim elements of k (multi-head latent attention): it is neither sent nor
  // cached a second time.
  bool latent = false;
  float scale = 1.0F;                            // multiplies q.k
  std::optional<float> soft_cap = std::nullopt;  // scores become cap * tanh(score / cap)
  std::optional<int32_t> window = std::nullopt;  // token i sees keys j with i - window < j <= i
  std::vector<float> alibi_slopes = {};          // [Hq]: adds slope * (j - i) to the score

  friend bool operator==(const AttentionAttrs&, const AttentionAttrs&) = default;
};

struct ColumnsAttrs {
  int64_t begin = 0;
  int64_t count = 0;
};
struct AllGatherAttrs {
  int32_t num_ranks = 1;
};
struct WeightAttrs {
  WeightSource source;
};

using NodeAttrs = std::variant<std::monostate,
                               WeightAttrs,
                               EmbeddingAttrs,
                               LinearAttrs,
                               NormAttrs,
                               ActivationAttrs,
                               GatedActivationAttrs,
                               ScaleAttrs,
                               SoftCapAttrs,
                               RopeTableAttrs,
                               RopeAttrs,
                               RouteAttrs,
                               AttentionAttrs,
                               ColumnsAttrs,
                               AllGatherAttrs>;

}  // namespace lamina
