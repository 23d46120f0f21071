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
  void expect_indices(const ValueType& type, std::string_view role, RowAxis rows) const {
    if (type != ValueType{DType::kI32, rows, {}}) {
      fail(fmt::format(
          "{} is {}, not {}", role, to_string(type), to_string({DType::kI32, rows, {}})));
    }
  }
};

ValueType infer_embedding(const Call& call) {
  call.expect_inputs(2, 2);
  call.expect_no_attrs();
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

ValueType infer_rms_norm(const Call& call) {
  call.expect_inputs(2, 2);
  const ValueType& x = call.inputs[0];
  const ValueType& weight = call.inputs[1];
  if (!(call.attrs_as<RmsNormAttrs>("RmsNormAttrs").eps > 0.0F)) call.fail("eps is not positive");
  call.expect_float_rows(x, "x");
  call.expect_weight(weight, "weight", 1, x.dtype);
  if (x.row_shape.rank() < 1 || x.row_shape[-1] != weight.row_shape[0]) {
    call.fail(fmt::format("x is {}, weight is {}", to_string(x), to_string(weight)));
  }
  return x;
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
  call.expect_no_attrs();
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

ValueType infer_attention(const Call& call) {
  call.expect_inputs(3, 3);
  const auto& attrs = call.attrs_as<AttentionAttrs>("AttentionAttrs");
  const ValueType& q = call.inputs[0];
  call.expect_float_rows(q, "q");
  const ValueType q_type{q.dtype, RowAxis::kTokens, {attrs.num_heads, attrs.head_dim}};
  const ValueType kv_type{q.dtype, RowAxis::kTokens, {attrs.num_kv_heads, attrs.head_dim}};
  if (q != q_type || call.inputs[1] != kv_type || call.inputs[2] != kv_type) {
    call.fail(fmt::format("q, k, v are {}, {}, {}; the attributes say {} and twice {}",
                          to_string(q),
                          to_string(call.inputs[1]),
                          to_string(call.inputs[2]),
                          to_string(q_type),
                          to_string(kv_type)));
  }
  if (attrs.num_kv_heads <= 0 || attrs.num_heads % attrs.num_kv_heads != 0) {
    call.fail(fmt::format(
        "{} heads do not share {} KV heads evenly", attrs.num_heads, attrs.num_kv_heads));
  }
  if (attrs.window && *attrs.window <= 0) {
    call.fail(fmt::format("window is {}, not positive", *attrs.window));
  }
  return q;
}

ValueType infer_elementwise(const Call& call, size_t num_inputs) {
  call.expect_inputs(num_inputs, num_inputs);
  call.expect_no_attrs();
  call.expect_float_rows(call.inputs[0], "x");
  if (call.inputs.front() != call.inputs.back()) {
    call.fail(fmt::format(
        "operands are {} and {}", to_string(call.inputs.front()), to_string(call.inputs.back())));
  }
  return call.inputs[0];
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
    case OpKind::kRmsNorm:
      return infer_rms_norm(call);
    case OpKind::kRopeTable:
      return infer_rope_table(call);
    case OpKind::kRope:
      return infer_rope(call);
    case OpKind::kAttention:
      return infer_attention(call);
    case OpKind::kAdd:
    case OpKind::kMul:
      return infer_elementwise(call, 2);
    case OpKind::kSilu:
      return infer_elementwise(call, 1);
    case OpKind::kGatherRows:
      return infer_gather_rows(call);
    case OpKind::kInput:
    case OpKind::kWeight:
    case OpKind::kReshape:
      call.fail("has a given type: use add_input, add_weight or add_reshape");
  }
  call.fail("is of no known kind");
}

}  // namespace lamina
