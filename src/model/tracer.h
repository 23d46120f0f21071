// The notation that model builders are written in. A Sym stands for a value of the forward pass, a
// Scope for a module of the model ("model.layers.3.self_attn"): it knows the module's weights by
// the names Hugging Face gives them. Every call appends one operator to the Graph being traced.
// Confined to one thread. Types that do not fit throw Error kInvalidArgument, naming the module.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace lamina {

class ModelTracer;

// A value of the graph being traced. Cheap to copy; does not outlive its ModelTracer.
class Sym {
 public:
  Sym(ModelTracer* tracer, ValueId id) : tracer_(tracer), id_(id) {}

  [[nodiscard]] ValueId id() const { return id_; }
  [[nodiscard]] const ValueType& type() const;
  // Extent of the last axis: the features of [T, E].
  [[nodiscard]] int64_t width() const { return type().row_shape[-1]; }

  // [T, H * D] -> [T, H, D].
  [[nodiscard]] Sym split_heads(int64_t num_heads) const;
  // [T, H, D] -> [T, H * D].
  [[nodiscard]] Sym join_heads() const;
  // Rotates the first elements of each head by the angles of a rope_table().
  [[nodiscard]] Sym rope(Sym table, bool interleaved = false) const;
  // Only the rows that `rows` names.
  [[nodiscard]] Sym gather_rows(Sym rows) const;
  // x * factor.
  [[nodiscard]] Sym scaled(float factor) const;
  // cap * tanh(x / cap).
  [[nodiscard]] Sym soft_capped(float cap) const;
  [[nodiscard]] Sym activated(Activation activation) const;
  // [T, H, A], [T, H, B] -> [T, H, A + B].
  [[nodiscard]] Sym concat(Sym other) const;
  // Router logits [T, X] f32 -> routing weights [T, X]; `bias` [X] takes part in choosing only.
  [[nodiscard]] Sym routed(const RouteAttrs& attrs, std::optional<Sym> bias = std::nullopt) const;

  friend Sym operator+(Sym a, Sym b);
  friend Sym operator*(Sym a, Sym b);  // b may be [T, 1]: one factor for each row

 private:
  friend Sym experts(Sym x,
                     Sym routes,
                     const struct ExpertWeights& weights,
                     const GatedActivationAttrs& attrs);
  friend Sym head_linear(Sym x, Sym weight);
  [[nodiscard]] Sym apply(OpKind kind, std::vector<ValueId> inputs, NodeAttrs attrs = {}) const;

  ModelTracer* tracer_;
  ValueId id_;
};

// The rows of a fused weight that belong to one projection.
struct FusedRows {
  int64_t total = 0;  // rows of the whole weight
  RowPattern rows;
};

struct LinearOptions {
  bool bias = false;
  std::optional<DType> out_dtype = std::nullopt;  // x's dtype otherwise
  std::optional<FusedRows> part = std::nullopt;   // of this module's weight and bias
  bool stored_transposed = false;                 // the file has [in, out]
};

struct AttentionOptions {
  std::optional<float> scale = std::nullopt;  // 1 / sqrt(head_dim) otherwise
  std::optional<float> soft_cap = std::nullopt;
  std::optional<int32_t> window = std::nullopt;
  std::vector<float> alibi_slopes = {};
  std::optional<Sym> sinks = std::nullopt;  // [Hq]
  // Values are the first `latent_width` elements of the keys.
  std::optional<int32_t> latent_width = std::nullopt;
};

// A module of the model. Cheap to copy; does not outlive its ModelTracer.
class Scope {
 public:
  Scope(ModelTracer* tracer, std::string path) : tracer_(tracer), path_(std::move(path)) {}

  // A module inside this one, by name or by number.
  [[nodiscard]] Scope operator/(std::string_view name) const;
  [[nodiscard]] Scope operator/(int32_t idx) const { return *this / std::to_string(idx); }
  [[nodiscard]] const std::string& path() const { return path_; }

  // Rows of this module's weight [num_rows, width] picked by `ids`; `first_row` leaves out the rows
  // before it.
  [[nodiscard]] Sym embedding(Sym ids,
                              int64_t num_rows,
                              int64_t width,
                              int64_t first_row = 0) const;
  // x weight^T (+ bias) with this module's weight [out_width, x's width].
  [[nodiscard]] Sym linear(Sym x, int64_t out_width, const LinearOptions& options = {}) const;
  [[nodiscard]] Sym rms_norm(Sym x, float eps, float weight_offset = 0.0F) const;
  [[nodiscard]] Sym layer_norm(Sym x, float eps, bool bias = true) const;
  // x [T, H, D] with a weight [H, D]: every head has its own.
  [[nodiscard]] Sym head_layer_norm(Sym x, Sym weight, float eps) const;
  // Causal attention over the sequence's cache; the next layer's index is counted here. Without a
  // latent width v [T, Hkv, Dv] is a value of its own, else it is k.
  [[nodiscard]] Sym attention(Sym q, Sym k, Sym v, const AttentionOptions& options) const;
  // This module's parameter `name`, stored with this shape.
  [[nodiscard]] Sym parameter(std::string_view name, const Shape& shape) const;
  // A weight of this module that `source` puts together.
  [[nodiscard]] Sym parameter(std::string_view name, const Shape& shape, WeightSource source) const;

 private:
  [[nodiscard]] ValueId linear_weight(std::string_view name,
                                      const Shape& stored,
                                      const Shape& shape,
                                      const LinearOptions& options) const;
  [[nodiscard]] Sym norm(Sym x, const NormAttrs& attrs, bool bias) const;
  [[nodiscard]] Sym apply(OpKind kind, std::vector<ValueId> inputs, NodeAttrs attrs = {}) const;

  ModelTracer* tracer_;
  std::string path_;
};

// Mixture of experts over x [T, K]: routes [T, X] f32, gate_up [X, 2 I, K], down [X, E, I], both
// biases or none.
struct ExpertWeights {
  Sym gate_up;
  Sym down;
  std::optional<Sym> gate_up_bias = std::nullopt;
  std::optional<Sym> down_bias = std::nullopt;
};
Sym experts(Sym x, Sym routes, const ExpertWeights& weights, const GatedActivationAttrs& attrs);
// x [T, H, K], weight [H, N, K] -> [T, H, N].
Sym head_linear(Sym x, Sym weight);

// One trace, with the three inputs that every model has. Activations and weights are in `dtype`.
// Neither copied nor moved: Syms point to it.
class ModelTracer {
 public:
  // Throws Error kInvalidArgument unless `dtype` is a float type.
  explicit ModelTracer(DType dtype);
  ~ModelTracer() = default;
  ModelTracer(const ModelTracer&) = delete;
  ModelTracer& operator=(const ModelTracer&) = delete;

  [[nodiscard]] Sym token_ids() { return {this, token_ids_}; }
  [[nodiscard]] Sym positions() { return {this, positions_}; }
  [[nodiscard]] Sym logits_rows() { return {this, logits_rows_}; }
  // The module at the root, or one named from there.
  [[nodiscard]] Scope module(std::string path) { return {this, std::move(path)}; }
  // cos and sin of every position, for Sym::rope.
  [[nodiscard]] Sym rope_table(RopeTableAttrs frequencies);

  // Ends the trace, once: `logits` is the output. The graph is verified and moved out.
  [[nodiscard]] Graph finish(Sym logits);

  [[nodiscard]] Graph& graph() { return graph_; }
  [[nodiscard]] DType dtype() const { return dtype_; }
  // 0, 1, 2, ...: one for each attention operator, in the order of tracing.
  [[nodiscard]] int32_t next_layer_idx() { return num_attentions_++; }

 private:
  Graph graph_;
  DType dtype_;
  ValueId token_ids_;
  ValueId positions_;
  ValueId logits_rows_;
  int32_t num_attentions_ = 0;
};

}  // namespace lamina
