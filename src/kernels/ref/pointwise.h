// The oracles of pointwise.h's operators: arguments are those that passed their checks.
#pragma once

#include <span>

#include "tensor/tensor_view.h"

namespace lamina::kernels::ref {

void gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out);
void rms_norm(const TensorView& x, const TensorView& weight, float eps, const TensorView& out);
void rope_table(const TensorView& positions,
                std::span<const float> inv_freq,
                float magnitude,
                const TensorView& out);
void rope(const TensorView& x, const TensorView& table, const TensorView& out);
void add(const TensorView& a, const TensorView& b, const TensorView& out);
void mul(const TensorView& a, const TensorView& b, const TensorView& out);
void silu(const TensorView& x, const TensorView& out);

}  // namespace lamina::kernels::ref
