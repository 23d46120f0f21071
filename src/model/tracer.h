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
  [[nodiscard]] Sym rope(Sym table) const;
  // Only the rows that `rows` names.
  [[nodiscard]] Sym gather_rows(Sym rows) const;

  friend Sym operator+(Sym a, Sym b);
  friend Sym operator*(Sym a, Sym b);
  friend Sym silu(Sym x);  // x / (1 + exp(-x))

 private:
  ModelTracer* tracer_;
  ValueId id_;
};

struct LinearOptions {
  bool bias = false;
  std::optional<DType> out_dtype = std::nullopt;  // x's dtype otherwise
};

// A module of the model. Cheap to copy; does not outlive its ModelTracer.
class Scope {
 public:
  Scope(ModelTracer* tracer, std::string path) : tracer_(tracer), path_(std::move(path)) {}

  // A module inside this one, by name or by number.
  [[nodiscard]] Scope operator/(std::string_view name) const;
  [[nodiscard]] Scope operator/(int32_t idx) const { return *this / std::to_string(idx); }
  [[nodiscard]] const std::string& path() const { return path_; }

  // Rows of this module's weight [num_rows, width] picked by `ids`.
  [[nodiscard]] Sym embedding(Sym ids, int64_t num_rows, int64_t width) const;
  // x weight^T (+ bias) with this module's weight [out_width, x's width].
  [[nodiscard]] Sym linear(Sym x, int64_t out_width, const LinearOptions& options = {}) const;
  [[nodiscard]] Sym rms_norm(Sym x, float eps) const;
  // Causal attention over the sequence's cache; the next layer's index is counted here.
  [[nodiscard]] Sym attention(
      Sym q, Sym k, Sym v, float scale, std::optional<int32_t> window = std::nullopt) const;

 private:
  [[nodiscard]] ValueId weight(std::string_view name, Shape shape) const;
  [[nodiscard]] Sym apply(OpKind kind, std::vector<ValueId> inputs, NodeAttrs attrs = {}) const;

  ModelTracer* tracer_;
  std::string path_;
};

// One trace, with the three inputs that every model has. Activations and weights are in `dtype`.
// Neither copied nor moved: Syms point to it.
class ModelTracer {
 public:
  // Throws Error kInvalidArgument unless `dtype` is a float type.
  explicit ModelTracer(DType dtype);
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
