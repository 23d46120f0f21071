#include "graph/infer_type.h"

#include <fmt/format.h>

#include <string>

#include "base/error.h"

namespace lamina {
namespace {

// One operator about to be added; its checks throw with its name.
struct Call {
  OpKind kind;
  std::string_view name;
  std::span<const ValueType> inputs;
  const NodeAttrs& attrs;

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("{} '{}': {}", op_kind_name(kind), name, what));
  }
  void expect_inputs(size_t least, size_t most) const {
    if (inputs.size() >= least && inputs.size() <= most) return;
    const std::string wanted =
        least == most ? fmt::format("{}", least) : fmt::format("{} to {}", least, most);
    fail(fmt::format("takes {} inputs, got {}", wanted, inputs.size()));
  }
  void expect_no_attrs() const {
    if (!std::holds_alternative<std::monostate>(attrs)) fail("takes no attributes");
  }
  template <typename T>
  void expect_optional(std::string_view type_names) const {
    if (!std::holds_alternative<std::monostate>(attrs)) attrs_as<T>(type_names);
  }
  template <typename T>
  const T& attrs_as(std::string_view type_name) const {
    const T* found = std::get_if<T>(&attrs);
    if (found == nullptr) fail(fmt::format("needs {}", type_name));
    return *found;
  }
  void expect_float_rows(const ValueType& type, std::string_view role) const {
    const bool is_float = type.dtype != DType::kI32 && type.dtype != DType::kU8;
    if (!is_float || type.rows == RowAxis::kFixed) {
      fail(fmt::format("{} is {}, not rows of floats", role, to_string(type)));
    }
  }
  void expect_weight(const ValueType& type, std::string_view role, int rank, DType dtype) const {
    const bool fits = type.rows == RowAxis::kFixed && type.row_shape.rank() == rank;
    if (!fits || type.dtype != dtype) {
      fail(fmt::format(
          "{} is {}, not a {} weight of rank {}", role, to_string(type), dtype_name(dtype), rank));
    }
  }
  void expect_weight_shape(size_t input,
                           std::string_view role,
                           const Shape& shape,
                           DType dtype) const {
    const ValueType wanted{dtype, RowAxis::kFixed, shape};
    if (inputs[input] == wanted) return;
    fail(fmt::format("{} is {}, not {}", role, to_string(inputs[input]), to_string(wanted)));
  }
  void expect_indices(const ValueType& type, std::string_view role, RowAxis rows) const {
    if (type != ValueType{DType::kI32, rows, {}}) {
      fail(fmt::format(
          "{} is {}, not {}", role, to_string(type), to_string({DType::kI32, rows, {}})));
    }
  }
};

ValueType infer_embedding(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_optional<EmbeddingAttrs>("EmbeddingAttrs or none");
  const ValueType& table = call.inputs[0];
  call.expect_weight(table, "table", 2, table.dtype);
  call.expect_indices(call.inputs[1], "ids", RowAxis::kTokens);
  const ValueType out{table.dtype, RowAxis::kTokens, {table.row_shape[1]}};
  call.expect_float_rows(out, "output");
  return out;
}

ValueType infer_linear(const Call& call) {
  call.expect_inputs(2, 3);
  const ValueType& x = call.inputs[0];
  const ValueType& weight = call.inputs[1];
  call.expect_float_rows(x, "x");
  call.expect_weight(weight, "weight", 2, x.dtype);
  if (x.row_shape.rank() != 1 || x.row_shape[0] != weight.row_shape[1]) {
    call.fail(fmt::format("x is {}, weight is {}", to_string(x), to_string(weight)));
  }
  if (call.inputs.size() == 3) {
    const ValueType& bias = call.inputs[2];
    call.expect_weight(bias, "bias", 1, x.dtype);
    if (bias.row_shape[0] != weight.row_shape[0]) {
      call.fail(fmt::format("bias is {}, weight is {}", to_string(bias), to_string(weight)));
    }
  }
  ValueType out{x.dtype, x.rows, {weight.row_shape[0]}};
  if (!std::holds_alternative<std::monostate>(call.attrs)) {
    out.dtype = call.attrs_as<LinearAttrs>("LinearAttrs or none").out_dtype;
    if (out.dtype != x.dtype && out.dtype != DType::kF32) {
      call.fail(fmt::format(
          "makes {} of {}; only x's dtype or f32", dtype_name(out.dtype), dtype_name(x.dtype)));
    }
  }
  return out;
}

ValueType infer_head_linear(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_no_attrs();
  const ValueType& x = call.inputs[0];
  const ValueType& weight = call.inputs[1];
  call.expect_float_rows(x, "x");
  call.expect_weight(weight, "weight", 3, x.dtype);
  const bool fits = x.row_shape.rank() == 2 && x.row_shape[0] == weight.row_shape[0] &&
                    x.row_shape[1] == weight.row_shape[2];
  if (!fits) call.fail(fmt::format("x is {}, weight is {}", to_string(x), to_string(weight)));
  return {x.dtype, x.rows, {weight.row_shape[0], weight.row_shape[1]}};
}

ValueType infer_experts(const Call& call) {
  call.expect_inputs(4, 6);
  call.attrs_as<GatedActivationAttrs>("GatedActivationAttrs");
  const ValueType& x = call.inputs[0];
  call.expect_float_rows(x, "x");
  if (x.row_shape.rank() != 1) call.fail(fmt::format("x is {}", to_string(x)));
  call.expect_weight(call.inputs[2], "gate_up", 3, x.dtype);
  call.expect_weight(call.inputs[3], "down", 3, x.dtype);
  const int64_t num_experts = call.inputs[3].row_shape[0];
  const int64_t out_width = call.inputs[3].row_shape[1];
  const int64_t inner_width = call.inputs[3].row_shape[2];
  const ValueType routes{DType::kF32, x.rows, {num_experts}};
  const bool fits = call.inputs[1] == routes &&
                    call.inputs[2].row_shape == Shape{num_experts, 2 * inner_width, x.row_shape[0]};
  if (!fits) {
    call.fail(fmt::format("x, routes, gate_up, down are {}, {}, {}, {}",
                          to_string(x),
                          to_string(call.inputs[1]),
                          to_string(call.inputs[2]),
                          to_string(call.inputs[3])));
  }
  if (call.inputs.size() > 4) {
    call.expect_weight_shape(4, "gate_up_bias", {num_experts, 2 * inner_width}, x.dtype);
  }
  if (call.inputs.size() > 5) {
    call.expect_weight_shape(5, "down_bias", {num_experts, out_width}, x.dtype);
  }
  return {x.dtype, x.rows, {out_width}};
}

// The weight and bias of a norm, from input `first` on.
void check_norm_weights(const Call& call, size_t first, const Shape& shape, DType dtype) {
  if (!(call.attrs_as<NormAttrs>("NormAttrs").eps > 0.0F)) call.fail("eps is not positive");
  call.expect_weight_shape(first, "weight", shape, dtype);
  if (call.inputs.size() > first + 1) call.expect_weight_shape(first + 1, "bias", shape, dtype);
}

ValueType infer_norm(const Call& call) {
  call.expect_inputs(2, 3);
  const ValueType& x = call.inputs[0];
  call.expect_float_rows(x, "x");
  if (x.row_shape.rank() < 1) call.fail(fmt::format("x is {}", to_string(x)));
  const bool by_head = x.row_shape.rank() == 2 && call.inputs[1].row_shape.rank() == 2;
  check_norm_weights(call, 1, by_head ? x.row_shape : Shape{x.row_shape[-1]}, x.dtype);
  return x;
}

ValueType infer_add_norm(const Call& call) {
  call.expect_inputs(3, 4);
  const ValueType& a = call.inputs[0];
  call.expect_float_rows(a, "a");
  if (a.row_shape.rank() != 1 || call.inputs[1] != a) {
    call.fail(fmt::format("a and b are {} and {}", to_string(a), to_string(call.inputs[1])));
  }
  check_norm_weights(call, 2, {a.row_shape[0]}, a.dtype);
  return {a.dtype, a.rows, {2, a.row_shape[0]}};
}

ValueType infer_rope_table(const Call& call) {
  call.expect_inputs(1, 1);
  const auto& attrs = call.attrs_as<RopeTableAttrs>("RopeTableAttrs");
  call.expect_indices(call.inputs[0], "positions", RowAxis::kTokens);
  if (attrs.inv_freq.empty()) call.fail("inv_freq is empty");
  const auto rotary_dim = static_cast<int64_t>(attrs.inv_freq.size()) * 2;
  return {DType::kF32, RowAxis::kTokens, {rotary_dim}};
}

ValueType infer_rope(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_optional<RopeAttrs>("RopeAttrs or none");
  const ValueType& x = call.inputs[0];
  const ValueType& table = call.inputs[1];
  call.expect_float_rows(x, "x");
  const bool is_table = table.dtype == DType::kF32 && table.rows == x.rows &&
                        table.row_shape.rank() == 1 && table.row_shape[0] % 2 == 0;
  if (!is_table || x.row_shape.rank() != 2 || table.row_shape[0] > x.row_shape[1]) {
    call.fail(fmt::format("x is {}, table is {}", to_string(x), to_string(table)));
  }
  return x;
}

// What is asked of the attributes, whatever the operands are.
void check_attention_attrs(const Call& call, const AttentionAttrs& attrs) {
  if (attrs.num_kv_heads <= 0 || attrs.num_heads % attrs.num_kv_heads != 0) {
    call.fail(fmt::format(
        "{} heads do not share {} KV heads evenly", attrs.num_heads, attrs.num_kv_heads));
  }
  if (attrs.window && *attrs.window <= 0) {
    call.fail(fmt::format("window is {}, not positive", *attrs.window));
  }
  if (attrs.soft_cap && !(*attrs.soft_cap > 0.0F)) {
    call.fail(fmt::format("soft cap is {}, not positive", *attrs.soft_cap));
  }
  const size_t num_slopes = attrs.alibi_slopes.size();
  if (num_slopes != 0 && num_slopes != static_cast<size_t>(attrs.num_heads)) {
    call.fail(fmt::format("{} ALiBi slopes for {} heads", num_slopes, attrs.num_heads));
  }
  if (attrs.latent && attrs.value_dim > attrs.head_dim) {
    call.fail(fmt::format(
        "values of {} elements do not lie in keys of {}", attrs.value_dim, attrs.head_dim));
  }
}

ValueType infer_attention(const Call& call) {
  call.expect_inputs(3, 4);
  const auto& attrs = call.attrs_as<AttentionAttrs>("AttentionAttrs");
  check_attention_attrs(call, attrs);
  const ValueType& q = call.inputs[0];
  call.expect_float_rows(q, "q");
  const ValueType q_type{q.dtype, RowAxis::kTokens, {attrs.num_heads, attrs.head_dim}};
  const ValueType k_type{q.dtype, RowAxis::kTokens, {attrs.num_kv_heads, attrs.head_dim}};
  ValueType v_type = k_type;
  if (!attrs.latent) v_type.row_shape = {attrs.num_kv_heads, attrs.value_dim};
  if (q != q_type || call.inputs[1] != k_type || call.inputs[2] != v_type) {
    call.fail(fmt::format("q, k, v are {}, {}, {}; the attributes say {}, {}, {}",
                          to_string(q),
                          to_string(call.inputs[1]),
                          to_string(call.inputs[2]),
                          to_string(q_type),
                          to_string(k_type),
                          to_string(v_type)));
  }
  if (call.inputs.size() == 4) call.expect_weight_shape(3, "sinks", {attrs.num_heads}, q.dtype);
  return {q.dtype, RowAxis::kTokens, {attrs.num_heads, attrs.value_dim}};
}

ValueType infer_add(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_no_attrs();
  call.expect_float_rows(call.inputs[0], "a");
  if (call.inputs[0] != call.inputs[1]) {
    call.fail(fmt::format(
        "operands are {} and {}", to_string(call.inputs[0]), to_string(call.inputs[1])));
  }
  return call.inputs[0];
}

ValueType infer_mul(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_no_attrs();
  ValueType factors = call.inputs[0];
  factors.row_shape = {1};
  const bool is_row_factor = call.inputs[0].row_shape.rank() == 1 && call.inputs[1] == factors;
  if (!is_row_factor) return infer_add(call);
  call.expect_float_rows(call.inputs[0], "a");
  return call.inputs[0];
}

// One operand, the result is like it.
template <typename Attrs>
ValueType infer_map(const Call& call, std::string_view attrs_name) {
  call.expect_inputs(1, 1);
  call.attrs_as<Attrs>(attrs_name);
  call.expect_float_rows(call.inputs[0], "x");
  return call.inputs[0];
}

ValueType infer_gated_activation(const Call& call) {
  const ValueType x = infer_map<GatedActivationAttrs>(call, "GatedActivationAttrs");
  if (x.row_shape.rank() != 2 || x.row_shape[0] != 2) {
    call.fail(fmt::format("x is {}, not [T, 2, N]", to_string(x)));
  }
  return {x.dtype, x.rows, {x.row_shape[1]}};
}

ValueType infer_route(const Call& call) {
  call.expect_inputs(1, 2);
  const auto& attrs = call.attrs_as<RouteAttrs>("RouteAttrs");
  const ValueType& logits = call.inputs[0];
  if (logits.dtype != DType::kF32 || logits.rows == RowAxis::kFixed ||
      logits.row_shape.rank() != 1) {
    call.fail(fmt::format("logits are {}, not rows of f32", to_string(logits)));
  }
  const int64_t num_experts = logits.row_shape[0];
  const bool groups_fit = attrs.num_groups >= 1 && num_experts % attrs.num_groups == 0 &&
                          attrs.top_groups >= 1 && attrs.top_groups <= attrs.num_groups;
  const int64_t choosable = groups_fit ? num_experts / attrs.num_groups * attrs.top_groups : 0;
  if (attrs.top_k < 1 || attrs.top_k > choosable) {
    call.fail(fmt::format("cannot choose {} of {} experts in {} of {} groups",
                          attrs.top_k,
                          num_experts,
                          attrs.top_groups,
                          attrs.num_groups));
  }
  if (call.inputs.size() == 2) {
    call.expect_weight_shape(1, "bias", {num_experts}, call.inputs[1].dtype);
  }
  return logits;
}

ValueType infer_concat(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_no_attrs();
  const ValueType& a = call.inputs[0];
  const ValueType& b = call.inputs[1];
  call.expect_float_rows(a, "a");
  const bool fits = a.dtype == b.dtype && a.rows == b.rows && a.row_shape.rank() == 2 &&
                    b.row_shape.rank() == 2 && a.row_shape[0] == b.row_shape[0];
  if (!fits) call.fail(fmt::format("operands are {} and {}", to_string(a), to_string(b)));
  return {a.dtype, a.rows, {a.row_shape[0], a.row_shape[1] + b.row_shape[1]}};
}

ValueType infer_columns(const Call& call) {
  call.expect_inputs(1, 1);
  const auto& attrs = call.attrs_as<ColumnsAttrs>("ColumnsAttrs");
  const ValueType& x = call.inputs[0];
  call.expect_float_rows(x, "x");
  const int64_t width = x.row_shape.rank() < 1 ? 0 : x.row_shape[0];
  if (attrs.begin < 0 || attrs.count <= 0 || attrs.begin + attrs.count > width) {
    call.fail(fmt::format(
        "columns [{}, {}) of {}", attrs.begin, attrs.begin + attrs.count, to_string(x)));
  }
  return {x.dtype, x.rows, x.row_shape.with(0, attrs.count)};
}

ValueType infer_all_reduce(const Call& call) {
  call.expect_inputs(1, 1);
  call.expect_no_attrs();
  call.expect_float_rows(call.inputs[0], "x");
  return call.inputs[0];
}

ValueType infer_all_gather(const Call& call) {
  const ValueType x = infer_map<AllGatherAttrs>(call, "AllGatherAttrs");
  const int32_t num_ranks = call.attrs_as<AllGatherAttrs>("AllGatherAttrs").num_ranks;
  if (x.row_shape.rank() != 1 || num_ranks < 1) {
    call.fail(fmt::format("gathers {} from {} ranks", to_string(x), num_ranks));
  }
  return {x.dtype, x.rows, {x.row_shape[0] * num_ranks}};
}

ValueType infer_gather_rows(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_no_attrs();
  const ValueType& x = call.inputs[0];
  if (x.rows != RowAxis::kTokens) call.fail(fmt::format("x is {}, not [T, ...]", to_string(x)));
  call.expect_indices(call.inputs[1], "rows", RowAxis::kLogits);
  return {x.dtype, RowAxis::kLogits, x.row_shape};
}

}  // namespace

ValueType infer_type(OpKind kind,
                     std::string_view name,
                     std::span<const ValueType> inputs,
                     const NodeAttrs& attrs) {
  const Call call{kind, name, inputs, attrs};
  switch (kind) {
    case OpKind::kEmbedding:
      return infer_embedding(call);
    case OpKind::kLinear:
      return infer_linear(call);
    case OpKind::kHeadLinear:
      return infer_head_linear(call);
    case OpKind::kExperts:
      return infer_experts(call);
    case OpKind::kAttention:
      return infer_attention(call);
    case OpKind::kNorm:
      return infer_norm(call);
    case OpKind::kAddNorm:
      return infer_add_norm(call);
    case OpKind::kAdd:
      return infer_add(call);
    case OpKind::kMul:
      return infer_mul(call);
    case OpKind::kScale:
      return infer_map<ScaleAttrs>(call, "ScaleAttrs");
    case OpKind::kSoftCap:
      return infer_map<SoftCapAttrs>(call, "SoftCapAttrs");
    case OpKind::kActivation:
      return infer_map<ActivationAttrs>(call, "ActivationAttrs");
    case OpKind::kGatedActivation:
      return infer_gated_activation(call);
    case OpKind::kRopeTable:
      return infer_rope_table(call);
    case OpKind::kRope:
      return infer_rope(call);
    case OpKind::kRoute:
      return infer_route(call);
    case OpKind::kConcat:
      return infer_concat(call);
    case OpKind::kGatherRows:
      return infer_gather_rows(call);
    case OpKind::kColumns:
      return infer_columns(call);
    case OpKind::kAllReduce:
      return infer_all_reduce(call);
    case OpKind::kAllGather:
      return infer_all_gather(call);
    case OpKind::kInput:
    case OpKind::kWeight:
    case OpKind::kReshape:
      call.fail("has a given type: use add_input, add_weight or add_reshape");
  }
  call.fail("is of no known kind");
}

}  // namespace lamina
