#include "model/tracer.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "base/error.h"

namespace lamina {
namespace {

float default_scale(int64_t head_dim) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
}

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

Sym Sym::apply(OpKind kind, std::vector<ValueId> inputs, NodeAttrs attrs) const {
  return {tracer_, tracer_->graph().add(kind, "", std::move(inputs), std::move(attrs))};
}

Sym Sym::rope(Sym table, bool interleaved) const {
  NodeAttrs attrs;
  if (interleaved) attrs = RopeAttrs{true};
  return apply(OpKind::kRope, {id_, table.id()}, std::move(attrs));
}

Sym Sym::gather_rows(Sym rows) const {
  return apply(OpKind::kGatherRows, {id_, rows.id()});
}

Sym Sym::scaled(float factor) const {
  return apply(OpKind::kScale, {id_}, ScaleAttrs{factor});
}

Sym Sym::soft_capped(float cap) const {
  return apply(OpKind::kSoftCap, {id_}, SoftCapAttrs{cap});
}

Sym Sym::activated(Activation activation) const {
  return apply(OpKind::kActivation, {id_}, ActivationAttrs{activation});
}

Sym Sym::concat(Sym other) const {
  return apply(OpKind::kConcat, {id_, other.id()});
}

Sym Sym::routed(const RouteAttrs& attrs, std::optional<Sym> bias) const {
  std::vector<ValueId> inputs = {id_};
  if (bias) inputs.push_back(bias->id());
  return apply(OpKind::kRoute, std::move(inputs), attrs);
}

Sym operator+(Sym a, Sym b) {
  return a.apply(OpKind::kAdd, {a.id_, b.id_});
}

Sym operator*(Sym a, Sym b) {
  return a.apply(OpKind::kMul, {a.id_, b.id_});
}

Sym experts(Sym x, Sym routes, const ExpertWeights& weights, const GatedActivationAttrs& attrs) {
  std::vector<ValueId> inputs = {x.id(), routes.id(), weights.gate_up.id(), weights.down.id()};
  for (const std::optional<Sym>& bias : {weights.gate_up_bias, weights.down_bias}) {
    if (bias) inputs.push_back(bias->id());
  }
  return x.apply(OpKind::kExperts, std::move(inputs), attrs);
}

Sym head_linear(Sym x, Sym weight) {
  return x.apply(OpKind::kHeadLinear, {x.id(), weight.id()});
}

Scope Scope::operator/(std::string_view name) const {
  return {tracer_, path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name)};
}

Sym Scope::apply(OpKind kind, std::vector<ValueId> inputs, NodeAttrs attrs) const {
  return {tracer_, tracer_->graph().add(kind, path_, std::move(inputs), std::move(attrs))};
}

Sym Scope::parameter(std::string_view name, const Shape& shape) const {
  const std::string full_name = fmt::format("{}.{}", path_, name);
  return parameter(name, shape, whole_tensor(full_name, shape));
}

Sym Scope::parameter(std::string_view name, const Shape& shape, WeightSource source) const {
  return {tracer_,
          tracer_->graph().add_weight(fmt::format("{}.{}", path_, name),
                                      {tracer_->dtype(), RowAxis::kFixed, shape},
                                      std::move(source))};
}

Sym Scope::embedding(Sym ids, int64_t num_rows, int64_t width, int64_t first_row) const {
  WeightSource source = whole_tensor(path_ + ".weight", {first_row + num_rows, width});
  if (first_row > 0) source = take_rows(source, {first_row, num_rows});
  const Sym table = parameter("weight", {num_rows, width}, std::move(source));
  return apply(OpKind::kEmbedding, {table.id(), ids.id()});
}

// The weight or the bias of a projection. Parts of a fused one are named by their rows.
ValueId Scope::linear_weight(std::string_view name,
                             const Shape& stored,
                             const Shape& shape,
                             const LinearOptions& options) const {
  std::string full_name = fmt::format("{}.{}", path_, name);
  const bool is_turned = options.stored_transposed && stored.rank() == 2;
  WeightSource source = is_turned ? transposed_tensor(full_name, {stored[1], stored[0]})
                                  : whole_tensor(full_name, stored);
  if (options.part) {
    source = take_rows(source, options.part->rows);
    full_name = to_string(source);
  }
  return tracer_->graph().add_weight(
      std::move(full_name), {tracer_->dtype(), RowAxis::kFixed, shape}, std::move(source));
}

Sym Scope::linear(Sym x, int64_t out_width, const LinearOptions& options) const {
  const int64_t stored_rows = options.part ? options.part->total : out_width;
  std::vector<ValueId> inputs = {
      x.id(), linear_weight("weight", {stored_rows, x.width()}, {out_width, x.width()}, options)};
  if (options.bias) {
    inputs.push_back(linear_weight("bias", {stored_rows}, {out_width}, options));
  }
  NodeAttrs attrs;
  if (options.out_dtype) attrs = LinearAttrs{*options.out_dtype};
  return apply(OpKind::kLinear, std::move(inputs), std::move(attrs));
}

Sym Scope::norm(Sym x, const NormAttrs& attrs, bool bias) const {
  std::vector<ValueId> inputs = {x.id(), parameter("weight", {x.width()}).id()};
  if (bias) inputs.push_back(parameter("bias", {x.width()}).id());
  return apply(OpKind::kNorm, std::move(inputs), attrs);
}

Sym Scope::rms_norm(Sym x, float eps, float weight_offset) const {
  return norm(x, {NormKind::kRms, eps, weight_offset}, false);
}

Sym Scope::layer_norm(Sym x, float eps, bool bias) const {
  return norm(x, {.kind = NormKind::kLayer, .eps = eps}, bias);
}

Sym Scope::head_layer_norm(Sym x, Sym weight, float eps) const {
  return apply(
      OpKind::kNorm, {x.id(), weight.id()}, NormAttrs{.kind = NormKind::kLayer, .eps = eps});
}

Sym Scope::attention(Sym q, Sym k, Sym v, const AttentionOptions& options) const {
  const AttentionAttrs attrs{
      .layer_idx = tracer_->next_layer_idx(),
      .num_heads = to_extent(q.type().row_shape[0]),
      .num_kv_heads = to_extent(k.type().row_shape[0]),
      .head_dim = to_extent(q.width()),
      .value_dim = options.latent_width ? *options.latent_width : to_extent(v.width()),
      .latent = options.latent_width.has_value(),
      .scale = options.scale.value_or(default_scale(q.width())),
      .soft_cap = options.soft_cap,
      .window = options.window,
      .alibi_slopes = options.alibi_slopes};
  std::vector<ValueId> inputs = {q.id(), k.id(), v.id()};
  if (options.sinks) inputs.push_back(options.sinks->id());
  return apply(OpKind::kAttention, std::move(inputs), attrs);
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
