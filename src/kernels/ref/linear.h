// The oracles of linear() and head_linear(): arguments are those that passed their checks.
#pragma once

#include "kernels/linear.h"

namespace lamina::kernels::ref {

void linear(const LinearArgs& args);
void head_linear(const TensorView& x, const TensorView& weight, const TensorView& out);

}  // namespace lamina::kernels::ref
