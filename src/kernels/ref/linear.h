// The oracle of linear(): arguments are those that passed its checks.
#pragma once

#include "kernels/linear.h"

namespace lamina::kernels::ref {

void linear(const LinearArgs& args);

}  // namespace lamina::kernels::ref
