// The oracles of linear() and head_linear(): arguments are those that passed their checks. Also
// what serves packed weights where multiplies_packed() says no.
#pragma once

#include <vector>

#include "kernels/linear.h"

namespace lamina::kernels::ref {

void linear(const LinearArgs& args);
// Columns [begin, end) of out.
void linear_part(const LinearArgs& args, int64_t begin, int64_t end);
void head_linear(const TensorView& x, const WeightView& weight, const TensorView& out);

// A row of a weight [N, K].
std::vector<double> weight_row(const WeightView& weight, int64_t row);
// A row of x as it meets that weight: rounded to int8 by blocks, times the scale, if the weight is
// quantised.
std::vector<double> product_row(const WeightView& weight, const std::vector<float>& x);
double dot(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace lamina::kernels::ref
