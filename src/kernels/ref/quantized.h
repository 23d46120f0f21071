// The oracle of kernels/quantized.h: plain loops, f64 sums of the rounded x and the weights'
// values.
#pragma once

#include "kernels/quantized.h"

namespace lamina::kernels::ref {

void quantized_linear(const QuantizedLinearArgs& args);
void quantized_embedding(const QuantizedMatrix& table,
                         const TensorView& ids,
                         const TensorView& out);

}  // namespace lamina::kernels::ref
