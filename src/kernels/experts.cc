#include "kernels/experts.h"

#include <fmt/format.h>

#include "kernels/checks.h"
#include "kernels/cpu/experts.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

Status check_route(const TensorView& logits,
                   const TensorView& bias,
                   const RouteAttrs& attrs,
                   const TensorView& out) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor("route", "logits", logits, 2));
  const int64_t num_experts = logits.shape[1];
  LAMINA_RETURN_IF_ERROR(check_tensor("route", "logits", logits, logits.shape, DType::kF32));
  LAMINA_RETURN_IF_ERROR(check_tensor("route", "out", out, logits.shape, DType::kF32));
  if (!bias.empty()) {
    LAMINA_RETURN_IF_ERROR(check_float_tensor("route", "bias", bias, 1));
    LAMINA_RETURN_IF_ERROR(check_tensor("route", "bias", bias, {num_experts}, bias.dtype));
  }
  const bool groups_fit = attrs.num_groups >= 1 && num_experts % attrs.num_groups == 0 &&
                          attrs.top_groups >= 1 && attrs.top_groups <= attrs.num_groups;
  const int64_t choosable = groups_fit ? num_experts / attrs.num_groups * attrs.top_groups : 0;
  if (attrs.top_k >= 1 && attrs.top_k <= choosable) return {};
  return invalid_argument(fmt::format("route: {} of {} experts in {} of {} groups",
                                      attrs.top_k,
                                      num_experts,
                                      attrs.top_groups,
                                      attrs.num_groups));
}

Status check_experts(const ExpertsArgs& args) {
  constexpr std::string_view kOp = "experts";
  LAMINA_RETURN_IF_ERROR(check_float_tensor(kOp, "x", args.x, 2));
  const DType dtype = args.x.dtype;
  const int64_t num_tokens = args.x.shape[0];
  const Shape down = args.down.shape();
  if (down.rank() != 3) return invalid_argument("experts: down is no stack of matrices");
  const int64_t num_experts = down[0];
  const int64_t out_width = down[1];
  const int64_t inner_width = down[2];
  const Shape gate_up = {num_experts, 2 * inner_width, args.x.shape[1]};
  LAMINA_RETURN_IF_ERROR(check_weight(kOp, "down", args.down, down, dtype));
  LAMINA_RETURN_IF_ERROR(check_weight(kOp, "gate_up", args.gate_up, gate_up, dtype));
  LAMINA_RETURN_IF_ERROR(
      check_tensor(kOp, "routes", args.routes, {num_tokens, num_experts}, DType::kF32));
  LAMINA_RETURN_IF_ERROR(check_tensor(kOp, "out", args.out, {num_tokens, out_width}, dtype));
  if (!args.gate_up_bias.empty()) {
    LAMINA_RETURN_IF_ERROR(check_tensor(
        kOp, "gate_up_bias", args.gate_up_bias, {num_experts, 2 * inner_width}, dtype));
  }
  if (args.down_bias.empty()) return {};
  return check_tensor(kOp, "down_bias", args.down_bias, {num_experts, out_width}, dtype);
}

}  // namespace

Status route(TensorView logits,
             TensorView bias,
             const RouteAttrs& attrs,
             TensorView out,
             StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_route(logits, bias, attrs, out));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::route(logits, bias, attrs, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::route(logits, bias, attrs, out, stream);
  }
  return {};
}

Status experts(const ExpertsArgs& args, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_experts(args));
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::experts(args, stream.pool());
      return {};
    case DeviceKind::kCuda:
      if (args.gate_up.is_packed() || args.down.is_packed()) return no_packed_weights("experts");
      return cuda::experts(args, stream);
  }
  return {};
}

}  // namespace lamina::kernels
