#include "model/tracer.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"

namespace lamina {
namespace {

int32_t to_extent(int64_t extent) {
  return static_cast<int32_t>(extent);
}

}  // namespace

const ValueType& Sym::type() const {
  return tracer_->graph().type(id_);
}

Sym Sym::split_heads(int64_t num_heads) const {
  if (num_heads <= 0 || width() % num_heads != 0) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("{} does not split into {} heads", to_string(type()), num_heads));
  }
  return {tracer_, tracer_->graph().add_reshape("", id_, {num_heads, width() / num_heads})};
}

Sym Sym::join_heads() const {
  return {tracer_, tracer_->graph().add_reshape("", id_, {type().row_shape.num_elements()})};
}

Sym Sym::rope(Sym table) const {
  return {tracer_, tracer_->graph().add(OpKind::kRope, "", {id_, table.id()})};
}

Sym Sym::gather_rows(Sym rows) const {
  return {tracer_, tracer_->graph().add(OpKind::kGatherRows, "", {id_, rows.id()})};
}

Sym operator+(Sym a, Sym b) {
  return {a.tracer_, a.tracer_->graph().add(OpKind::kAdd, "", {a.id_, b.id_})};
}

Sym operator*(Sym a, Sym b) {
  return {a.tracer_, a.tracer_->graph().add(OpKind::kMul, "", {a.id_, b.id_})};
}

Sym silu(Sym x) {
  return {x.tracer_, x.tracer_->graph().add(OpKind::kSilu, "", {x.id_})};
}

Scope Scope::operator/(std::string_view name) const {
  return {tracer_, path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name)};
}

ValueId Scope::weight(std::string_view name, Shape shape) const {
  return tracer_->graph().add_weight(fmt::format("{}.{}", path_, name),
                                     {tracer_->dtype(), RowAxis::kFixed, shape});
}

Sym Scope::apply(OpKind kind, std::vector<ValueId> inputs, NodeAttrs attrs) const {
  return {tracer_, tracer_->graph().add(kind, path_, std::move(inputs), std::move(attrs))};
}

Sym Scope::embedding(Sym ids, int64_t num_rows, int64_t width) const {
  return apply(OpKind::kEmbedding, {weight("weight", {num_rows, width}), ids.id()});
}

Sym Scope::linear(Sym x, int64_t out_width, const LinearOptions& options) const {
  std::vector<ValueId> inputs = {x.id(), weight("weight", {out_width, x.width()})};
  if (options.bias) inputs.push_back(weight("bias", {out_width}));
  NodeAttrs attrs;
  if (options.out_dtype) attrs = LinearAttrs{*options.out_dtype};
  return apply(OpKind::kLinear, std::move(inputs), std::move(attrs));
}

Sym Scope::rms_norm(Sym x, float eps) const {
  return apply(OpKind::kRmsNorm, {x.id(), weight("weight", {x.width()})}, RmsNormAttrs{eps});
}

Sym Scope::attention(Sym q, Sym k, Sym v, float scale, std::optional<int32_t> window) const {
  const AttentionAttrs attrs{.layer_idx = tracer_->next_layer_idx(),
                             .num_heads = to_extent(q.type().row_shape[0]),
                             .num_kv_heads = to_extent(k.type().row_shape[0]),
                             .head_dim = to_extent(q.width()),
                             .scale = scale,
                             .window = window};
  return apply(OpKind::kAttention, {q.id(), k.id(), v.id()}, attrs);
}

ModelTracer::ModelTracer(DType dtype)
    : dtype_(dtype),
      token_ids_(graph_.add_input("token_ids", {DType::kI32, RowAxis::kTokens, {}})),
      positions_(graph_.add_input("positions", {DType::kI32, RowAxis::kTokens, {}})),
      logits_rows_(graph_.add_input("logits_rows", {DType::kI32, RowAxis::kLogits, {}})) {
  if (dtype == DType::kI32 || dtype == DType::kU8) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("a model does not compute in {}", dtype_name(dtype)));
  }
}

Sym ModelTracer::rope_table(RopeTableAttrs frequencies) {
  return {this, graph_.add(OpKind::kRopeTable, "rotary_emb", {positions_}, std::move(frequencies))};
}

Graph ModelTracer::finish(Sym logits) {
  graph_.set_output(logits.id());
  graph_.verify();
  return std::move(graph_);
}

}  // namespace lamina
