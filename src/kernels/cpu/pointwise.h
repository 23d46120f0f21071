// The operators of pointwise.h on the CPU: arguments are those that passed their checks.
#pragma once

#include "device/thread_pool.h"
#include "tensor/op_attrs.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cpu {

void add(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool);
void mul(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool);
// b [T, 1].
void mul_rows(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool);
void scale(const TensorView& x, float factor, const TensorView& out, ThreadPool& pool);
void soft_cap(const TensorView& x, float cap, const TensorView& out, ThreadPool& pool);
void activation(const TensorView& x, Activation kind, const TensorView& out, ThreadPool& pool);
void gated_activation(const TensorView& x,
                      const GatedActivationAttrs& attrs,
                      const TensorView& out,
                      ThreadPool& pool);

}  // namespace lamina::kernels::cpu
