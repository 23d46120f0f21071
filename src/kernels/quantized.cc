#include "kernels/quantized.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/cpu/quantized.h"
#include "kernels/ref/quantized.h"

namespace lamina::kernels {
namespace {

Status check_matrix(std::string_view op, const QuantizedMatrix& matrix) {
  if (matrix.data != nullptr && matrix.columns % kQuantBlock == 0) return {};
  return invalid_argument(
      fmt::format("{}: a quantised matrix [{}, {}] without data or whole blocks",
                  op,
                  matrix.rows,
                  matrix.columns));
}

Status check(const QuantizedLinearArgs& args) {
  constexpr std::string_view kOp = "quantized_linear";
  LAMINA_RETURN_IF_ERROR(check_matrix(kOp, args.weight));
  LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "x", args.x, 2));
  const int64_t num_tokens = args.x.shape[0];
  LAMINA_RETURN_IF_ERROR(
      check_tensor(kOp, "x", args.x, {num_tokens, args.weight.columns}, args.x.dtype));
  if (!args.bias.empty()) {
    LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "bias", args.bias, {args.weight.rows}, args.x.dtype));
  }
  const DType out_dtype = args.out.dtype == DType::kF32 ? DType::kF32 : args.x.dtype;
  return check_tensor(kOp, "out", args.out, {num_tokens, args.weight.rows}, out_dtype);
}

Status check_embedding(const QuantizedMatrix& table, const TensorView& ids, const TensorView& out) {
  constexpr std::string_view kOp = "quantized_embedding";
  LAMINA_RETURN_IF_ERROR(check_matrix(kOp, table));
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "ids", ids, {ids.shape[0]}, DType::kI32));
  LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "out", out, 2));
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "out", out, {ids.shape[0], table.columns}, out.dtype));
  for (int64_t i = 0; i < ids.shape[0]; ++i) {
    const int32_t id = *ids.row<int32_t>(i);
    if (id >= 0 && id < table.rows) continue;
    return invalid_argument(fmt::format("{}: id {} of {}", kOp, id, table.rows));
  }
  return {};
}

}  // namespace

bool has_fast_quantized_linear() {
  return cpu::uses_int8_dot();
}

Status quantized_linear(const QuantizedLinearArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check(args));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      if (cpu::uses_int8_dot()) {
        cpu::quantized_linear(args, stream.pool());
      } else {
        ref::quantized_linear(args);
      }
      return {};
    case DeviceKind::kCuda:
      return no_cuda("quantized_linear");
  }
  return {};
}

Status quantized_embedding(const QuantizedMatrix& table,
                           TensorView ids,
                           TensorView out,
                           StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_embedding(table, ids, out));
  if (stream.device().kind == DeviceKind::kCuda) return no_cuda("quantized_embedding");
  ref::quantized_embedding(table, ids, out);  // some microseconds a step
  return {};
}

}  // namespace lamina::kernels
