// The oracles of pointwise.h, norm.h, rope.h and rows.h: arguments are those that passed their
// checks.
#pragma once

#include <span>

#include "kernels/norm.h"
#include "tensor/op_attrs.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::ref {

void gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out);
void norm(const NormArgs& args);
void rope_table(const TensorView& positions,
                std::span<const float> inv_freq,
                float magnitude,
                const TensorView& out);
void rope(const TensorView& x, const TensorView& table, bool interleaved, const TensorView& out);
void add(const TensorView& a, const TensorView& b, const TensorView& out);
void mul(const TensorView& a, const TensorView& b, const TensorView& out);
void soft_cap(const TensorView& x, float cap, const TensorView& out);
void activation(const TensorView& x, Activation kind, const TensorView& out);
void gated_activation(const TensorView& x,
                      const GatedActivationAttrs& attrs,
                      const TensorView& out);
// Of one value.
double activate(double x, Activation kind);
double gate(double gate, double up, const GatedActivationAttrs& attrs);

}  // namespace lamina::kernels::ref
