// The oracles of experts.h: arguments are those that passed their checks.
#pragma once

#include "kernels/experts.h"

namespace lamina::kernels::ref {

void route(const TensorView& logits,
           const TensorView& bias,
           const RouteAttrs& attrs,
           const TensorView& out);
void experts(const ExpertsArgs& args);

}  // namespace lamina::kernels::ref
