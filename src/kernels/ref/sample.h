// The oracle of sample(): arguments are those that passed its checks, logits have no infinity but
// -inf. Sorts everything, in double precision.
#pragma once

#include <span>

#include "kernels/sample.h"

namespace lamina::kernels::ref {

SampledToken sample(std::span<const float> logits, const SampleRow& row);

}  // namespace lamina::kernels::ref
